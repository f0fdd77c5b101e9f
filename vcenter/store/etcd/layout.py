"""Where things are in etcd, and how they are written. Pure.

    PREFIX/head           the last revision, and the token of the run that made it
    PREFIX/log/FIRST      a run: batches that became durable in one transaction, from revision FIRST
    PREFIX/part/FIRST.TOKEN/N   pieces of a run that does not fit into one value
    PREFIX/now/KEY        the key's current value, after the revision that wrote it
    PREFIX/redo           a run whose values are not all in `now/` yet
    PREFIX/begins         where history begins
    PREFIX/cluster        the cluster that this ledger was made in
    PREFIX/pen            whose turn it is to write, when several are in each other's way
    PREFIX/mail/ID/…      letters to that replica
    PREFIX/replica/ID     a vCenter that is alive, for as long as its lease is

Our revision is a counter in `head`, not etcd's: it has no gaps and does not know what else the
cluster stores. Every transaction compares `head`, so the ledger is one history, whoever writes.

The past of `now/` is etcd's own: the value at one of our revisions is the value at the revision of
etcd just before or after a run. A deleted key keeps an empty mark until history forgets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from common.pb.vsignal.v1 import storage_pb2 as pb
from vcenter.store.port import Entry, Put

_NUMBER = 8  # bytes of a revision
TOKEN = 16
_CUTS = [f"vm/{digit}" for digit in "0123456789abcdef"]


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the history. `encoded` is what a transaction compares."""

    revision: int
    token: bytes

    def encoded(self) -> bytes:
        return self.revision.to_bytes(_NUMBER, "big") + self.token


def read_head(value: bytes) -> Head:
    return Head(int.from_bytes(value[:_NUMBER], "big"), value[_NUMBER:])


@dataclass(frozen=True, slots=True)
class Held:
    """What `now/` says of a key. `value` None: it was deleted."""

    revision: int
    value: bytes | None


def write_held(revision: int, value: bytes | None) -> bytes:
    """The mark of a deletion is the revision alone; a value follows a byte, so that it may be
    empty."""
    number = revision.to_bytes(_NUMBER, "big")
    return number if value is None else number + b"=" + value


def read_held(value: bytes) -> Held:
    revision = int.from_bytes(value[:_NUMBER], "big")
    return Held(revision, value[_NUMBER + 1 :] if len(value) > _NUMBER else None)


def until(prefix: bytes) -> bytes:
    """The end of the range of keys with this prefix."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


class Keys:
    def __init__(self, prefix: str) -> None:
        root = prefix.encode() + b"/"
        self.head = root + b"head"
        self.redo = root + b"redo"
        self.pen = root + b"pen"
        self.begins = root + b"begins"
        self.cluster = root + b"cluster"
        self.logs = root + b"log/"
        self.parts = root + b"part/"
        self.nows = root + b"now/"
        self.mails = root + b"mail/"
        self.replicas = root + b"replica/"

    def log(self, first: int) -> bytes:
        return self.logs + b"%016x" % first

    def part(self, first: int, token: bytes = b"", number: int = 0) -> bytes:
        """Without a token: where the parts of all runs before this one end."""
        place = self.parts + b"%016x" % first
        return place + b".%b/%08x" % (token.hex().encode(), number) if token else place

    def now(self, key: str) -> bytes:
        return self.nows + key.encode()

    def pieces(self) -> Iterator[tuple[bytes, bytes]]:
        """All of `now/` in ranges, in order. For each page etcd 3.4 looks at every key up to the
        range's end, which among a million takes longer than a call may; so VMs, whose ids are
        mostly random, are read by their first digit."""
        yield from pairwise([self.nows, *map(self.now, _CUTS), until(self.nows)])

    def name_of(self, now: bytes) -> str:
        return now[len(self.nows) :].decode()

    def mail(self, name: str) -> bytes:
        return self.mails + name.encode() + b"/"

    def replica(self, name: str) -> bytes:
        return self.replicas + name.encode()


def write_batches(batches: Sequence[Sequence[Put]]) -> list[pb.LogBatch]:
    return [pb.LogBatch(puts=[pb.LogPut(key=p.key, value=p.value) for p in b]) for b in batches]


def last_of(run: pb.LogRun) -> int:
    return run.first + len(run.batches) - 1


def entries_of(run: pb.LogRun) -> Iterator[Entry]:
    for number, batch in enumerate(run.batches):
        puts = tuple(Put(p.key, p.value if p.HasField("value") else None) for p in batch.puts)
        yield Entry(run.first + number, puts, run.at_ms)


def outcome_of(run: pb.LogRun) -> dict[str, Held]:
    """What the run leaves of each key that it touches."""
    return {put.key: Held(e.revision, put.value) for e in entries_of(run) for put in e.puts}
