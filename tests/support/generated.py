"""Messages of any type, made from bytes by its descriptor: nonsense, and what is nearly right.

The bytes are the choices, so that hypothesis and atheris alike can draw, mutate and shrink them;
where they run out, the choice is the plainest. (Drawing each field from hypothesis takes ten times
as long.) Fields that name something draw from what the fuzzed ledger has as often as from anything,
so that what is generated comes past the first check.
"""

from __future__ import annotations

import random
import struct
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.support.nouns import ip, mac, vm_id

MAX_DEPTH = 6
MOST_CHOICES = 360  # bytes; a profile of many rules takes them all
NAMES = ["blue", "red", "green", "web", "host-1", "host-2", "host-3", "blue-net", "red-net"]
ADDRESSES = [mac(1), mac(2), mac(9), ip(1), ip(2), "2001:db8::1", "10.0.0.0/8", "::/0", "0.0.0.0"]
IDS = [vm_id(1), vm_id(2), vm_id(9), f"{{{vm_id(1)}}}"]
BY_FIELD = {
    "vm_id": IDS,
    "leaving": IDS,
    "mac": ADDRESSES,
    "ip": ADDRESSES,
    "ips": ADDRESSES,
    "source_mac": ADDRESSES,
    "source_prefix": ADDRESSES,
    "destination_prefix": ADDRESSES,
}
TEXTS = [
    "",
    "\0",
    "é",
    "a" * 63,
    "x" * 300,
    "../x",
    "%s",
    "spiffe://local/operator/a",
    "\u202e\U0001f98a",
]
FLOATS = [0.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf"), 1e308]
SMALL = [0, 1, 2, 6, 17, 100, 200]
F = FieldDescriptor
BITS = {
    F.CPPTYPE_INT32: struct.Struct("<i"),
    F.CPPTYPE_INT64: struct.Struct("<q"),
    F.CPPTYPE_UINT32: struct.Struct("<I"),
    F.CPPTYPE_UINT64: struct.Struct("<Q"),
}


class Choices:
    """Decisions, one after the other, until the bytes are used up; then always the first one."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def used(self) -> int:
        return min(self._at, len(self._raw))

    def below(self, most: int) -> int:
        if self._at >= len(self._raw):
            return 0
        self._at += 1
        return self._raw[self._at - 1] % most

    def of(self, what: list[Any]) -> Any:
        return what[self.below(len(what))]

    def take(self, count: int) -> bytes:
        taken = self._raw[self._at : self._at + count]
        self._at += count
        return taken


def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Any message of the type; most fields of most are set."""
    size = _choices_of(descriptor)
    raw = st.binary(min_size=size, max_size=size)
    return raw.map(lambda drawn: message(descriptor, Choices(drawn)))


def _choices_of(descriptor: Descriptor) -> int:
    """About as many bytes as a message takes, for each one is drawn."""
    chance, used = random.Random(0), 1
    for _ in range(30):
        choices = Choices(chance.randbytes(MOST_CHOICES))
        message(descriptor, choices)
        used = max(used, choices.used)
    return used


def message(descriptor: Descriptor, choices: Choices, depth: int = 0) -> Message:
    made = _kind(descriptor)()
    for field in descriptor.fields:
        if (depth < MAX_DEPTH or field.message_type is None) and choices.below(4):
            _fill(made, field, choices, depth)
    return made


@cache
def _kind(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)


def _fill(made: Message, field: FieldDescriptor, choices: Choices, depth: int) -> None:
    if not field.is_repeated:
        value = _value(field, choices, depth)
        if field.message_type is None:
            setattr(made, field.name, value)
        else:
            getattr(made, field.name).CopyFrom(value)
        return
    values = [_value(field, choices, depth) for _ in range(choices.below(4))]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        for entry in values:
            getattr(made, field.name)[entry.key] = entry.value
    else:
        getattr(made, field.name).extend(values)


def _value(field: FieldDescriptor, choices: Choices, depth: int) -> Any:
    if field.message_type is None:
        return _scalar(field, choices)
    return message(field.message_type, choices, depth + 1)


def _scalar(field: FieldDescriptor, choices: Choices) -> Any:
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return 99 if choices.below(10) == 9 else choices.of(known)
    if field.type == F.TYPE_BYTES:
        return choices.take(choices.below(200))
    if field.cpp_type == F.CPPTYPE_STRING:
        return _text(field.name, choices)
    if field.cpp_type == F.CPPTYPE_BOOL:
        return bool(choices.below(2))
    if field.cpp_type in BITS:
        return _number(BITS[field.cpp_type], choices)
    return choices.of(FLOATS)


def _text(field: str, choices: Choices) -> str:
    match choices.below(6):
        case 4:
            return str(choices.of(TEXTS))
        case 5:
            return choices.take(choices.below(24)).decode(errors="replace")
    return str(choices.of(BY_FIELD.get(field, NAMES)))


def _number(kind: struct.Struct, choices: Choices) -> int:
    match choices.below(3):
        case 1:
            raw = choices.take(kind.size)
        case 2:
            raw = choices.of(
                [b"\xff" * 8, bytes(kind.size - 1) + b"\x80", b"\xff" * (kind.size - 1) + b"\x7f"]
            )
        case _:
            return int(choices.of(SMALL))
    return int(kind.unpack(raw[: kind.size].ljust(kind.size, b"\0"))[0])
