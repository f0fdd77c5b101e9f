"""Between model and wire: everything that is valid comes back as it was, and is stored likewise."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.codec import enums
from common.codec.checker import Checker
from common.codec.operation import from_outcome, to_outcome
from common.codec.profile import from_profile, to_profile
from common.codec.record_bytes import record_bytes
from common.codec.server import from_vm_status, to_vm_status
from common.codec.times import from_duration, from_timestamp, to_duration, to_timestamp
from common.codec.vm import from_vm, to_record, to_vm
from common.codec.wanted import (
    from_change,
    from_network,
    from_wanted_vm,
    to_change,
    to_network,
    to_wanted_vm,
)
from common.errors import Reason, Refusal, Violation
from common.model.operation import (
    Failure,
    HostedState,
    MoveOutcome,
    MoveStep,
    Operation,
    Phase,
    PhaseTime,
    Receipt,
)
from common.model.profile import (
    TCP,
    UDP,
    Acl,
    AclRule,
    Action,
    Capability,
    Direction,
    PortRange,
    Profile,
    Rate,
)
from common.model.server import (
    Alert,
    Group,
    Liveness,
    Server,
    Severity,
    Tenant,
    VirtualNetwork,
    VmStatus,
)
from common.model.vm import Interface, Location, Resources, Tombstone, Vm, VmRecord, VmState
from common.model.wanted import (
    Forward,
    MoveOrder,
    NetworkChange,
    NetworkPart,
    PortState,
    WantedNetwork,
    WantedVm,
)
from common.status import refusal_to_status
from vcenter.ledger.records import Unreadable, decode, encode

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=60)
uuids = st.uuids().map(str)
macs = st.integers(1, 2**40 - 1).map(
    lambda n: ":".join(f"{b:02x}" for b in (2, *n.to_bytes(5, "big")))
)
ips = st.integers(0x0A000001, 0x0AFFFFFE).map(lambda n: ".".join(map(str, n.to_bytes(4, "big"))))
vnis = st.integers(1, 2**24 - 1)
times = st.integers(0, 4_000_000_000_000)
epochs = st.integers(0, 2**63)
ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(
    lambda pair: PortRange(min(pair), max(pair))
)
rules = st.builds(
    AclRule,
    action=st.sampled_from(Action),
    direction=st.sampled_from(Direction),
    name=st.text(st.characters(codec="utf-8"), max_size=63),
    source_mac=st.none() | macs,
    source_prefix=st.sampled_from([None, "10.0.0.0/8", "192.0.2.1/32"]),
    protocol=st.sampled_from([TCP, UDP]),
    destination_ports=st.none() | ports,
)
acls = st.builds(
    Acl,
    rules=st.lists(rules, max_size=3).map(tuple),
    default_ingress=st.sampled_from(Action),
    default_egress=st.sampled_from(Action),
)
rates = st.builds(Rate, st.integers(8_000, 400_000_000_000), st.integers(0, 2**32 - 1))
profiles = st.builds(
    Profile,
    vlan=st.none() | st.integers(1, 4094),
    acl=st.none() | acls,
    ingress_rate=st.none() | rates,
    egress_rate=st.none() | rates,
    priority=st.none() | st.integers(0, 7),
    anti_spoofing=st.none() | st.booleans(),
    router_advertisements=st.none() | st.booleans(),
    dhcp_server=st.none() | st.booleans(),
)
interfaces = st.builds(
    Interface, macs, st.lists(ips, max_size=3).map(tuple), names | st.just(""), vnis | st.just(0)
)
resources = st.builds(Resources, st.integers(0, 2**16), st.integers(0, 2**40))
vms = st.builds(
    Vm,
    vm_id=uuids,
    name=texts,
    tenant=names | st.just(""),
    group=names | st.just(""),
    interfaces=st.lists(interfaces, max_size=3, unique_by=lambda i: i.mac).map(tuple),
    profile=st.none() | profiles,
    resources=resources,
)
locations = st.builds(Location, names, st.sampled_from(VmState), st.integers(1, 2**64 - 1))
records = st.builds(VmRecord, vms, locations, times, uuids | st.just(""))
failures = st.builds(Failure, st.sampled_from([r.name for r in Reason]), texts)
numbers = st.floats(0, 1e9, allow_nan=False)
operations = st.builds(
    Operation,
    operation_id=uuids,
    kind=st.just("relocate"),
    vm_id=uuids,
    source=names,
    destination=names,
    phase=st.sampled_from(Phase),
    requested_by=texts,
    created_ms=times,
    epoch_before=epochs,
    epoch_after=epochs,
    cancel_requested=st.booleans(),
    ended_ms=st.just(0) | times,
    phases=st.lists(
        st.builds(PhaseTime, st.sampled_from(Phase), times), min_size=1, max_size=4
    ).map(tuple),
    failure=st.none() | failures,
    receipt=st.builds(Receipt, numbers, numbers, numbers, epochs, st.integers(0, 9)),
    acks=st.lists(names, max_size=2).map(tuple),
)
servers = st.builds(
    Server,
    server_id=names,
    name=texts,
    management_address=ips | st.just(""),
    vtep_address=ips | st.just(""),
    capacity=resources,
    hypervisor=names,
    capabilities=st.frozensets(st.sampled_from(Capability)),
    migration_uri=texts,
    liveness=st.sampled_from(Liveness),
    last_seen_ms=times,
)
graves = records.map(lambda r: Tombstone(r.vm.vm_id, r.location.epoch, r.changed_ms, r))
networks = st.builds(
    VirtualNetwork, names, names, st.lists(vnis, min_size=1, max_size=4, unique=True).map(tuple)
)
alerts = st.builds(
    Alert,
    alert_id=uuids,
    reason=st.sampled_from([r.name for r in Reason]),
    message=texts,
    severity=st.sampled_from(Severity),
    raised_ms=times,
    vm_id=uuids,
    server_id=names,
    evidence=st.dictionaries(texts, texts, max_size=3).map(lambda d: tuple(sorted(d.items()))),
)
groups = st.builds(Group, names, names, st.none() | profiles)
outcomes = st.builds(
    MoveOutcome,
    operation_id=uuids,
    vm_id=uuids,
    epoch=epochs,
    step=st.sampled_from(MoveStep),
    ok=st.booleans(),
    truth=st.sampled_from(HostedState),
    failure=st.none() | failures,
    policy_hash=st.text("0123456789abcdef", max_size=64),
    downtime_ms=numbers,
    bytes=epochs,
    iterations=st.integers(0, 2**32 - 1),
)
orders = st.builds(MoveOrder, uuids, st.sampled_from(MoveStep), names, ips, texts, epochs)
wanted_vms = st.builds(
    WantedVm,
    vm=vms,
    epoch=epochs,
    owned=st.booleans(),
    profile=profiles,
    profile_hash=texts,
    ports=st.sampled_from(PortState),
    closed_reason=texts,
    move=st.none() | orders,
)
forwards = st.lists(st.builds(Forward, macs, ips), max_size=3).map(tuple)
several_ips = st.lists(ips, max_size=3).map(tuple)
several_macs = st.lists(macs, max_size=3).map(tuple)
digests = st.integers(0, (1 << 64) - 1)
wanted_networks = st.builds(
    NetworkPart,
    st.builds(WantedNetwork, vnis, names, forwards, several_ips),
    epochs,
    digests,
    st.integers(0, 9),
)
network_changes = st.builds(
    NetworkChange,
    vnis,
    epochs,
    digests,
    digests,
    forwards,
    several_macs,
    several_ips,
    several_ips,
)
statuses = st.builds(
    VmStatus,
    vm_id=uuids,
    epoch=epochs,
    state=st.sampled_from([s for s in VmState if s is not VmState.LOST_NEEDS_FENCE]),
    cpu_percent=numbers,
    memory_used_mib=epochs,
    applied_hash=st.text("0123456789abcdef", max_size=64),
    port_problem=texts,
)
quick = settings(max_examples=40, deadline=None)
STORED: dict[str, st.SearchStrategy[Any]] = {
    "vm": records,
    "gone": graves,
    "server": servers,
    "tenant": st.builds(Tenant, names),
    "network": networks,
    "group": groups,
    "op": operations,
    "alert": alerts,
}
SENT: dict[str, tuple[st.SearchStrategy[Any], Any, Any]] = {
    "vm": (vms, to_vm, from_vm),
    "profile": (profiles, to_profile, from_profile),
    "outcome": (outcomes, to_outcome, from_outcome),
    "wanted vm": (wanted_vms, to_wanted_vm, from_wanted_vm),
    "network": (wanted_networks, to_network, lambda _, w: from_network(w)),
    "network change": (network_changes, to_change, lambda _, w: from_change(w)),
    "status": (statuses, to_vm_status, from_vm_status),
}


@pytest.mark.parametrize("kind", STORED)
def test_what_is_stored_is_read_back_as_it_was(kind: str) -> None:
    @quick
    @given(STORED[kind])
    def check(record: Any) -> None:
        value = encode(record)
        assert value is not None and decode(f"{kind}/x", value) == record
        assert encode(record) == value, "the same record, the same bytes"

    check()


@given(
    records | st.builds(VmRecord, vms, locations, times, revision=st.integers(0, 2**63)),
    st.sampled_from(["", "f" * 64]),
)
def test_a_record_written_byte_by_byte_is_what_protobuf_writes(
    record: VmRecord, profile_hash: str
) -> None:
    wire = to_record(record, profile_hash)
    assert record_bytes(record, profile_hash) == wire.SerializeToString(deterministic=True)


@pytest.mark.parametrize("kind", SENT)
def test_what_is_sent_arrives_as_it_was(kind: str) -> None:
    strategy, to, read = SENT[kind]

    @quick
    @given(strategy)
    def check(said: Any) -> None:
        wire = to(said)
        copy = type(wire).FromString(wire.SerializeToString())
        checker = Checker()
        assert read(checker, copy) == said
        assert checker.violations == []

    check()


@quick
@given(profiles, profiles)
def test_a_profiles_hash_is_that_of_its_content(one: Profile, other: Profile) -> None:
    assert (one.digest() == other.digest()) is (one == other)
    assert from_profile(Checker(), to_profile(one)).digest() == one.digest()


@quick
@given(profiles, profiles)
def test_a_profile_over_another_takes_field_by_field(own: Profile, group: Profile) -> None:
    both = own.over(group)
    for field in fields(Profile):
        mine = getattr(own, field.name)
        assert getattr(both, field.name) == (getattr(group, field.name) if mine is None else mine)


@given(times)
def test_times_keep_their_milliseconds(ms: int) -> None:
    assert from_timestamp(to_timestamp(ms)) == ms


@given(st.floats(0, 1e6))
def test_durations_keep_their_value(seconds: float) -> None:
    assert from_duration(to_duration(seconds)) == pytest.approx(seconds, abs=1e-8)


ENUMS = [
    (enums.ACTION, Action),
    (enums.DIRECTION, Direction),
    (enums.CAPABILITY, Capability),
    (enums.VM_STATE, VmState),
    (enums.LIVENESS, Liveness),
    (enums.SEVERITY, Severity),
    (enums.PHASE, Phase),
    (enums.MOVE_STEP, MoveStep),
    (enums.HOSTED_STATE, HostedState),
    (enums.PORT_STATE, PortState),
]


@pytest.mark.parametrize(("codec", "model"), ENUMS, ids=[model.__name__ for _, model in ENUMS])
def test_every_enum_has_every_value_on_both_sides(codec: Any, model: Any) -> None:
    for member in model:
        assert codec.read(Checker(), "x", codec.to(member)) is member
    for number, word in ((0, "not said"), (77, "unknown value 77")):
        checker = Checker()
        codec.read(checker, "x", number)
        assert checker.violations == [Violation("x", word)]


def test_a_checker_names_the_whole_path_and_raises_once() -> None:
    checker = Checker()
    with checker.at("vm"), checker.at("interfaces[0]"):
        checker.fail("mac", "bad")
    with checker.at("acl"):
        checker.fail("", "contradicts itself")
    with pytest.raises(Refusal) as caught:
        checker.done()
    assert [v.field for v in caught.value.violations] == ["vm.interfaces[0].mac", "acl"]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_becomes_a_status(reason: Reason) -> None:
    status = refusal_to_status(Refusal(reason, "text", evidence={"a": "b"}, retry_after=1.5))
    assert status.code and status.message == "text"
    assert reason.explanation.endswith(".")


@pytest.mark.parametrize(
    ("key", "value"), [("star/x", b""), ("vm/x", b"\xff\xff"), ("vm/x", b""), ("op/x", b"")]
)
def test_a_record_that_cannot_be_read_is_said_to_be_so(key: str, value: bytes) -> None:
    with pytest.raises(Unreadable, match=key):
        decode(key, value)
