"""One index over the copies of other domains: it names everybody who has a VM or a claim, and
strikes out who has nothing any more."""

from __future__ import annotations

import random

from common.codec.vm import to_record
from common.model.vm import Interface, Location, Vm, VmRecord, VmState
from common.pb.vsignal.v1 import directory_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2
from tests.support.nouns import vm_id
from vcenter.federation.copy import Copy
from vcenter.federation.index import Index
from vcenter.wire.caller import Caller, Role

NUMBERS, VNIS = range(1, 9), (100, 200, 300)
ANNA = Caller(Role.VIEW, "anna")


def record(number: int, vnis: tuple[int, ...], server_id: str = "h1", epoch: int = 1) -> VmRecord:
    nics = tuple(
        Interface(f"52:54:00:00:{at:02x}:{number:02x}", (), "net", vni)
        for at, vni in enumerate(vnis)
    )
    vm = Vm(vm_id(number), f"vm-{number}", "blue", "", nics)
    return VmRecord(vm, Location(server_id, VmState.RUNNING, epoch), 1_700_000_000_000)


def event(record: VmRecord) -> pb.WatchEvent:
    return pb.WatchEvent(vm=to_record(record, ""))


def copies(*names: str) -> tuple[Index[str], dict[str, Copy]]:
    index: Index[str] = Index()
    return index, {name: Copy(name, lambda *seen: None, index.share(name)) for name in names}


def check(index: Index[str], all_copies: dict[str, Copy]) -> None:
    """Against what each copy has, questions' and twins' alike."""
    for number in NUMBERS:
        have = {
            name
            for name, copy in all_copies.items()
            for table in (copy.table, copy.held.view)
            if table.vm(vm_id(number)) is not None
        }
        assert set(index.who(vm_id(number), ())) == have
    for vni in VNIS:
        have = {
            name
            for name, copy in all_copies.items()
            for table in (copy.table, copy.held.view)
            if vni in table.vms.vnis()
        }
        assert set(index.who("", (vni,))) == have


def test_the_index_names_exactly_who_has_something_whatever_happens() -> None:
    chance = random.Random(6)
    index, all_copies = copies("east", "west", "north")
    for copy in all_copies.values():
        copy.begin_anew()
    for _ in range(1500):
        copy = chance.choice(list(all_copies.values()))
        number = chance.choice(NUMBERS)
        what = chance.random()
        if what < 0.6:
            vnis = tuple(chance.sample(VNIS, chance.randint(0, 2)))
            copy.take(event(record(number, vnis)))
        elif what < 0.85:
            copy.take(pb.WatchEvent(vm_gone=vm_id(number)))
        elif what < 0.95:
            copy.take(pb.WatchEvent(bookmark=True, revision=7))
        else:
            copy.begin_anew()
        check(index, all_copies)
    for copy in all_copies.values():
        copy.begin_anew()
        copy.take(pb.WatchEvent(bookmark=True, revision=8))
    check(index, all_copies)
    assert not any(index.who(vm_id(number), VNIS) for number in NUMBERS)


def test_of_two_that_have_it_both_are_named_once() -> None:
    index, all_copies = copies("east", "west")
    for copy in all_copies.values():
        copy.take(event(record(1, (100,))))
    assert sorted(index.who(vm_id(1), (100, 200))) == ["east", "west"]
    assert not index.who(vm_id(2), (200,))


def test_an_answer_from_pieces_says_what_the_moment_is_and_nothing_of_policy() -> None:
    _, all_copies = copies("east")
    copy = all_copies["east"]
    copy.take(event(record(1, (100,), epoch=4)))
    copy.take(event(record(2, (100,), server_id="west/w1", epoch=5)))
    moment = signaling_pb2.LookupResult(certainty=signaling_pb2.CERTAINTY_CACHED)
    said = moment.SerializeToString()
    answered = [
        signaling_pb2.LookupResponse.FromString(encoded).results[0]
        for encoded in (copy.answer(vm_id(1), said), copy.hearsay(vm_id(2), said))
    ]
    assert [(r.found, r.vm_id, r.name) for r in answered] == [
        (True, vm_id(1), "vm-1"),
        (True, vm_id(2), "vm-2"),
    ]
    assert [(r.authority, r.location.server_id) for r in answered] == [
        ("east", "h1"),
        ("west", "w1"),
    ]
    assert [copy.place_of(vm_id(n)) for n in (1, 2)] == [("east", 4), ("west", 5)]
    assert all(r.certainty == signaling_pb2.CERTAINTY_CACHED for r in answered)
    assert not any(r.profile_hash for r in answered)
