"""Messages of any type, from its descriptor: nonsense, and what is nearly right.

Fields that name something draw from what the fuzzed ledger has as often as from anything, so that
what is generated comes past the first check.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.support.nouns import ip, mac, vm_id

MAX_DEPTH = 6
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
FLOATS = [0.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf"), 1e308]
F = FieldDescriptor
BITS = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@cache
def messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Any message of the type; most fields of most are set."""
    kind = GetMessageClass(descriptor)
    fields = [f for f in descriptor.fields if depth < MAX_DEPTH or f.message_type is None]

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = kind()
        for field in fields:
            if draw(st.integers(0, 3)):
                _fill(message, field, draw, depth)
        return message

    return build()


def _fill(message: Message, field: FieldDescriptor, draw: st.DrawFn, depth: int) -> None:
    if field.message_type is not None:
        inner = messages(field.message_type, depth + 1)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(inner, max_size=3)))
        else:
            getattr(message, field.name).CopyFrom(draw(inner))
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_scalar(field), max_size=4)))
    else:
        setattr(message, field.name, draw(_scalar(field)))


@cache
def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([v.number for v in field.enum_type.values] * 3 + [99])
    if field.type == F.TYPE_BYTES:
        return st.binary(max_size=200)
    if field.cpp_type == F.CPPTYPE_STRING:
        known = st.sampled_from(BY_FIELD.get(field.name, NAMES))
        return known | known | st.text(max_size=70)
    if field.cpp_type == F.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in BITS:
        low, high = BITS[field.cpp_type]
        small = st.sampled_from([0, 1, 2, 6, 17, 100, 200])
        return small | st.integers(low, high) | st.sampled_from([low, high])
    return st.sampled_from(FLOATS)
