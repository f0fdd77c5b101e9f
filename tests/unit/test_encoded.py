"""Encoded VMs, read by position: right, or not at all."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from common.codec.checker import Checker
from common.codec.vm import from_vm, to_vm
from common.model.vm import Vm
from common.pb.vsignal.v1 import types_pb2
from tests.support import nouns
from vcenter.core.packed import take_apart
from vcenter.ledger.encoded import packed

WORDS = st.sampled_from(["", "blue", "Blue", "web", "x" * 64, "ü" * 63, "y" * 200])
MACS = st.sampled_from(
    ["52:54:00:00:00:01", "02:00:00:00:00:02", "52-54-00-00-00-0A", "01:00:5e:00:00:01", "x"]
)
IPS = st.sampled_from(
    ["10.0.0.1", "10.255.0.99", "fd00::1", "010.0.0.1", "224.0.0.1", "2001:DB8::1", ""]
)
NICS = st.builds(
    types_pb2.Interface,
    mac=MACS,
    ips=st.lists(IPS, max_size=3),
    network=WORDS,
    vni=st.sampled_from([0, 1, 2**24]),
)
WIRE_VMS = st.builds(
    types_pb2.Vm,
    vm_id=st.sampled_from(["00000000-0000-4000-8000-000000000001", "nobody"]),
    name=WORDS,
    tenant=WORDS,
    group=WORDS,
    interfaces=st.lists(NICS, max_size=3),
    profile=st.none() | st.just(types_pb2.Profile(priority=1)),
    resources=st.builds(types_pb2.Resources, vcpus=st.sampled_from([0, 2, 2**17])),
)
GOOD = nouns.vm(
    1,
    group="web",
    interfaces=[nouns.interface(1, vni=100, ips=[nouns.ip(1), "fd00::1"]), nouns.interface(2)],
)


def read_in_full(said: bytes) -> Vm | None:
    """None: it is wrong."""
    check = Checker()
    try:
        vm = from_vm(check, types_pb2.Vm.FromString(said))
    except DecodeError:
        return None
    return None if check.violations else vm


def is_read_right(said: bytes) -> bool:
    """Or not at all, which is False."""
    parts = packed(said)
    if parts is None:
        return False
    vm = read_in_full(said)
    assert vm is not None and parts.vm() == vm, "what is read is right"
    assert (parts.kind, parts.addresses, parts.name) == tuple(take_apart(vm))
    assert parts.encoded == to_vm(vm).SerializeToString(deterministic=True), "as it is stored"
    return True


@given(wire=WIRE_VMS)
@settings(max_examples=300)
def test_what_is_read_by_position_is_what_is_read_field_by_field(wire: types_pb2.Vm) -> None:
    is_read_right(wire.SerializeToString())


@given(
    at=st.integers(0, GOOD.ByteSize() - 1),
    less=st.integers(0, 3),
    more=st.binary(max_size=3) | st.sampled_from([b"2", b":", b"*", b"\x7f", b"\x12\x00"]),
)
@settings(max_examples=500)
def test_bytes_that_were_damaged_are_read_right_or_not_at_all(
    at: int, less: int, more: bytes
) -> None:
    said = GOOD.SerializeToString()
    damaged = said[:at] + more + said[at + less :]
    try:
        types_pb2.Vm.FromString(damaged)  # what comes from the wire or the store was a message
    except DecodeError:
        return
    is_read_right(damaged)


def test_vms_as_hosts_have_them_are_read_by_position() -> None:
    assert is_read_right(GOOD.SerializeToString())
    assert is_read_right(nouns.vm(1, tenant="").SerializeToString())
    assert is_read_right(nouns.vm(1, name="", profile=nouns.deny_ssh()).SerializeToString())


def test_what_this_release_does_not_know_is_not_stored_unread() -> None:
    unknown = b"\x9a\x06\x01x"  # field 99
    assert packed(GOOD.SerializeToString() + unknown) is None
    twice = [nouns.interface(1), nouns.interface(1)]
    assert packed(nouns.vm(1, interfaces=twice).SerializeToString()) is None
