"""Timestamps and durations: integers of milliseconds inside, well-known types on the wire.

What is read is within what can be written, whoever sent it: the well-known types' fields hold more
than the types allow, and what was believed must not fail later, in an answer to somebody else.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
_LONGEST_S = 315_576_000_000  # 10,000 years


def to_timestamp(ms: int) -> Timestamp:
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def from_timestamp(stamp: Timestamp) -> int:
    """The first or the last moment that there is, for what lies beyond."""
    return min(max(stamp.seconds * 1000 + stamp.nanos // 1_000_000, _FIRST_MS), _LAST_MS)


def to_duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def from_duration(duration: Duration) -> float:
    """At most the longest that there is, in either direction."""
    return min(max(duration.seconds + duration.nanos / 1e9, -_LONGEST_S), _LONGEST_S)
