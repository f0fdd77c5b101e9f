"""A packed VM is the VM: whatever was put in comes out, by every way in and out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.model.identity import Claim
from common.model.profile import Profile
from common.model.server import Group, Server
from common.model.vm import Interface, Location, Resources, Vm, VmRecord, VmState
from common.pb.vsignal.v1 import signaling_pb2 as pb
from tests.support.nouns import vm_id
from vcenter.core import indexes, keys
from vcenter.core.table import Change, Table
from vcenter.ledger.feed import Feed
from vcenter.ledger.loading import Loader
from vcenter.ledger.records import Unreadable, encode
from vcenter.store.port import Record
from vcenter.wire.answers import Answers

NIC = Interface("52:54:00:00:00:01", ("10.0.0.1",), "lan", 100)
SIX = Interface("52:54:00:00:00:02", ("fd00::1", "10.0.0.2", "::ffff:1.2.3.4"), "lan", 100)
BARE = Interface("52:54:00:00:00:03")
VMS = [
    Vm(vm_id(1), "web-1", "blue", "web", (NIC,), None, Resources(2, 2048)),
    Vm(vm_id(2)),
    Vm(vm_id(3), "x" * 127, "blue", "", (NIC, BARE), Profile(priority=3)),
    Vm(vm_id(4), "ü" * 64, "blue", "", (SIX,)),
    Vm(vm_id(5), "y" * 255, interfaces=(BARE,)),
    Vm(vm_id(6), "", "blue", "", (NIC, replace(BARE, ips=("10.0.0.3", "10.0.0.4"), vni=100))),
    Vm(vm_id(7), "db-1", interfaces=(BARE,)),
]


def stored(vm: Vm, operation_id: str = "") -> VmRecord:
    location = Location("h1", VmState.PAUSED, 2**63)
    return VmRecord(vm, location, 1_700_000_000_123, operation_id, revision=9)


def load(loader: Loader, record: Record) -> None:
    loader.add([record])
    loader.finish()


def read_back(record: VmRecord) -> Table:
    table, value = Table(), encode(record)
    assert value is not None
    load(Loader(table), Record(keys.vm(record.vm.vm_id), value, record.revision))
    return table


@pytest.mark.parametrize("operation_id", ["", vm_id(99)])
@pytest.mark.parametrize("vm", VMS, ids=lambda vm: vm.vm_id[-1])
def test_what_is_put_in_comes_out(vm: Vm, operation_id: str) -> None:
    record = stored(vm, operation_id)
    table = Table()
    table.apply(9, [Change(keys.vm(vm.vm_id), record)])
    again = read_back(record)
    for held in (table, again):
        # IPv4 inside IPv6 has two spellings; which of them is Python's, and differs by release.
        assert held.get(keys.vm(vm.vm_id)) == record or "::ffff" in str(vm)
        assert {held.holder(claim) for claim in vm.claims()} <= {vm.vm_id}
        assert set(held.find(indexes.VMS)) == {keys.vm(vm.vm_id)}
        assert list(held.owners_on(100)) == (["h1"] if 100 in vm.vnis() else [])
    table.apply(10, [Change(keys.vm(vm.vm_id), None)])
    assert not table.vms.rows and not table.vms.kinds
    assert table.holder(Claim(100, NIC.mac)) is None and not list(table.owners_on(100))


def test_plain_vms_are_not_read_field_by_field() -> None:
    table = Table()
    loader = Loader(table)
    for number in range(1, 40):
        nic = replace(NIC, mac=f"52:54:00:00:00:{number:02x}", ips=(f"10.0.0.{number * 6}",))
        vm = Vm(vm_id(number), f"web-{number}", "blue", "web", (nic,), None, Resources(2, 2048))
        location = Location(f"h{number % 3}", VmState.RUNNING, number)
        record = VmRecord(vm, location, 1_700_000_000_000 + number, revision=number)
        value = encode(replace(record, revision=0))
        assert value is not None
        load(loader, Record(keys.vm(vm.vm_id), value, number))
        assert table.get(keys.vm(vm.vm_id)) == record
        assert loader.in_full == 0
    operation = stored(replace(VMS[0], vm_id=vm_id(50)), vm_id(99))
    value = encode(operation)
    assert value is not None
    load(loader, Record(keys.vm(vm_id(50)), value, operation.revision))
    assert table.get(keys.vm(vm_id(50))) == operation
    assert loader.in_full == 1, "one with an operation goes the long way"


def test_the_short_way_from_the_store_checks_what_the_long_way_checks() -> None:
    good = encode(stored(VMS[0]))
    assert good is not None
    loader = Loader(Table())
    load(loader, Record(keys.vm(vm_id(1)), good, 1))
    for found, wrong in ((b"10.0.0.1", b"10.0.0.x"), (b"52:54:00", b"53:54:00")):
        with pytest.raises(Unreadable):
            load(loader, Record(keys.vm(vm_id(1)), good.replace(found, wrong), 1))
    with pytest.raises(Unreadable):
        load(loader, Record(keys.vm(vm_id(1)), good[:-3], 1))


def test_answers_follow_what_they_are_made_of() -> None:
    feed = Feed(Table())
    answers = Answers(feed, "site-a")
    feed.publish(1, [Change(keys.server("h1"), Server("h1", "one", vtep_address="192.0.2.1"))])
    feed.publish(2, [Change(keys.group("blue", "web"), Group("blue", "web"))])
    feed.publish(3, [Change(keys.vm(vm_id(1)), stored(VMS[0]))])

    def asked() -> pb.LookupResponse:
        return pb.LookupResponse.FromString(answers.encode([vm_id(1), None]))

    first = asked()
    found, missing = first.results
    assert first.revision == 3
    assert (found.found, found.vm_id, found.name) == (True, vm_id(1), "web-1")
    assert (found.tenant, found.group, found.authority) == ("blue", "web", "site-a")
    assert found.location.server_id == "h1" and found.location.epoch == 2**63
    assert found.vtep_address == "192.0.2.1" and found.profile_hash == Profile().digest()
    assert not missing.found and missing.authority == "site-a"

    rated = Profile(priority=5)
    feed.publish(4, [Change(keys.group("blue", "web"), Group("blue", "web", rated))])
    feed.publish(5, [Change(keys.server("h1"), Server("h1", vtep_address="192.0.2.9"))])
    changed = asked().results[0]
    assert changed.profile_hash == rated.digest() and changed.vtep_address == "192.0.2.9"
