"""Stored VMs taken apart, a page of them at a time, without the table that they are for.

A stored VM is what `record_bytes` wrote, and is read as it was written (`encoded`): what many have
in common is compared as bytes, and only the first of a kind is read in full. Whatever is not
plainly so is handed back as it stands, for the long way, which says what is wrong, if anything is.

All that comes out is text, bytes and numbers, so that another process can do it (`helpers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from common.codec.enums import VM_STATE
from common.model.vm import VmState
from common.pb.vsignal.v1 import types_pb2 as pb
from vcenter.core.keys import VM
from vcenter.core.packed import NUMBER, STATE_NUMBERS
from vcenter.ledger.encoded import LIKE, Shape, kind_of, split
from vcenter.store.port import Stored

_VM, _LOCATION, _CHANGED = 0x0A, 0x12, 0x22  # tags of VmRecord
_STATES = {VM_STATE.to(state): STATE_NUMBERS[state] for state in VmState}

Place: TypeAlias = tuple[str, int, int]  # the vServer, the state's number, the epoch
Home: TypeAlias = tuple[Shape, Place]


class Page(NamedTuple):
    """`homes`: what the VMs are like and where, each once; of each VM which of them (`which`), its
    id, and the part of its row that is its own: time, revision, addresses, name."""

    homes: list[Home]
    which: list[int]
    vm_ids: list[str]
    tails: list[bytes]
    rest: list[Stored]


class _Unlike(Exception):
    """Not as `record_bytes` writes what is plain."""


class Splitter:
    """Remembers what it has seen once; each process may have its own."""

    def __init__(self) -> None:
        self._shapes: set[Shape] = set()
        self._places: dict[bytes, Place] = {}
        self._times: dict[bytes, bytes] = {}

    def split(self, records: Iterable[Stored]) -> Page:
        page, numbers = Page([], [], [], [], []), dict[Home, int]()
        for record in records:
            try:
                home, vm_id, tail = self._vm(record)
            except (_Unlike, IndexError, KeyError, ValueError, DecodeError):
                page.rest.append(record)
                continue
            number = numbers.get(home)
            if number is None:
                number = numbers[home] = len(numbers)
                page.homes.append(home)
            page.which.append(number)
            page.vm_ids.append(vm_id)
            page.tails.append(tail)
        return page

    def _vm(self, record: Stored) -> tuple[Home, str, bytes]:
        key, value, revision = record
        if not key.startswith(VM):
            raise _Unlike
        at, end = _vm(value)
        parts = split(value[at:end])
        if parts is None:
            raise _Unlike
        vm_id, name, addresses, shape = parts
        if key[len(VM) :] != vm_id:
            raise _Unlike
        name.decode()  # which nobody has looked at
        if shape not in self._shapes:
            self._look_at(shape)
        there = _after(value, end)
        place, time = self._place(value[end:there]), self._time(value[there:])
        return (shape, place), vm_id, b"".join((time, NUMBER.pack(revision), addresses, name))

    def _look_at(self, shape: Shape) -> None:
        if kind_of(shape) is None:
            raise _Unlike
        if len(self._shapes) < LIKE:
            self._shapes.add(shape)

    def _place(self, said: bytes) -> Place:
        place = self._places.get(said)
        if place is None:
            if said[0] != _LOCATION:
                raise _Unlike
            location = pb.VmRecord.FromString(said).location
            place = location.server_id, _STATES[location.state], location.epoch
            if len(self._places) < LIKE:
                self._places[said] = place
        return place

    def _time(self, said: bytes) -> bytes:
        """In milliseconds, as in the row."""
        time = self._times.get(said)
        if time is None:
            if said[0] != _CHANGED or _after(said, 0) != len(said):
                raise _Unlike  # an operation follows, say
            at = pb.VmRecord.FromString(said).changed_at
            time = NUMBER.pack(at.seconds * 1000 + at.nanos // 1_000_000)
            if len(self._times) < LIKE:
                self._times[said] = time
        return time


def _after(value: bytes, at: int) -> int:
    """Where the field that starts here ends."""
    size = value[at + 1]
    if size > 127:
        raise _Unlike
    return at + 2 + size


def _vm(value: bytes) -> tuple[int, int]:
    """Where the VM's fields start and end."""
    if value[0] != _VM:
        raise _Unlike
    size, more = value[1], value[2]
    if size < 128:
        return 2, 2 + size
    if more > 127:
        raise _Unlike
    return 3, 3 + (size & 127 | more << 7)
