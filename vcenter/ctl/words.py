"""Values as people read them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

NONE = "-"
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def clean(text: str) -> str:
    """Text from elsewhere without control characters, so that no name can drive a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def word(message: Message, field: str) -> str:
    """An enum field as a word: VM_STATE_SHUT_OFF is `shut-off`."""
    number = getattr(message, field)
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None
    return enum_word(enum, number)


def enum_word(enum: Any, number: int) -> str:
    """A number of an enum as a word; one that this release does not know stays a number."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    name = str(value.name).removeprefix(prefix)
    return NONE if name == "UNSPECIFIED" else name.lower().replace("_", "-")


def size(count: float) -> str:
    """Bytes: `1.50 GiB`."""
    for unit in _BINARY:
        if count < 1024 or unit == _BINARY[-1]:
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.2f} {unit}"


def span(milliseconds: float) -> str:
    """`41 ms`, `2.31 s`, `3 min 20 s`."""
    if milliseconds < 10:
        return f"{milliseconds:.2g} ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 120_000:
        return f"{milliseconds / 1000:.2f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s"


def moment(stamp: Timestamp) -> str:
    """UTC, to the second; `-` if never."""
    if not stamp.seconds:
        return NONE
    return stamp.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ")


def age(duration: Duration) -> str:
    """How old an answer is."""
    return span(duration.ToTimedelta().total_seconds() * 1000)


def listed(items: Iterable[object]) -> str:
    """Joined with commas; `-` if there is nothing."""
    return ", ".join(str(item) for item in items) or NONE


def or_none(text: str) -> str:
    """The text; `-` if it is empty."""
    return text or NONE


def short(digest: str) -> str:
    """The head of a hash or id, enough to compare by eye."""
    return digest[:12] or NONE


def share(part: int, whole: int) -> str:
    """`12.0/64.0 GiB 19%`, from MiB."""
    if not whole:
        return NONE
    return f"{part / 1024:.1f}/{whole / 1024:.1f} GiB {100 * part / whole:.0f}%"
