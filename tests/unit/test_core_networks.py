"""Networks in words, for all of their hosts: who is behind hears the whole, a big one in parts."""

from __future__ import annotations

from collections.abc import Iterable

from common.codec.wanted import from_change, from_network
from common.model.server import Server
from common.model.vm import Interface, Location, Resources, Vm, VmRecord, VmState
from common.pb.vsignal.v1.session_pb2 import CenterMessage
from common.rpc import MAX_MESSAGE
from vcenter.agents.networks import REMEMBERED, Networks
from vcenter.core import keys
from vcenter.core.roster import PART
from vcenter.core.table import Change, Table
from vserver.core.networks import Networks as Heard

VNI = 100
HOSTS = ("h0", "h1")


def vm(number: int, host: str) -> Change:
    h = f"{number:012x}"
    mac = f"52:54:00:{h[6:8]}:{h[8:10]}:{h[10:]}"
    interfaces = (Interface(mac, (), "lan", VNI),)
    machine = Vm(f"00000000-0000-4000-8000-{h}", "", "blue", "", interfaces, None, Resources(1, 1))
    return Change(keys.vm(machine.vm_id), VmRecord(machine, Location(host, VmState.RUNNING, 1), 1))


class Ledger:
    def __init__(self, remembered: int = REMEMBERED) -> None:
        self.table = Table()
        self.told: list[tuple[int, set[str]]] = []
        self.networks = Networks(self.table, lambda v, h: self.told.append((v, set(h))), remembered)
        servers = (Server(h, vtep_address=f"192.0.2.{n}") for n, h in enumerate(HOSTS))
        self.apply(Change(keys.server(s.server_id), s) for s in servers)
        self.apply(vm(n, host) for n, host in enumerate(HOSTS))

    def apply(self, changes: Iterable[Change]) -> None:
        for applied in self.table.apply(self.table.revision + 1, tuple(changes)):
            self.networks.note(applied)

    def news(self, host: str, heard: int | None) -> tuple[list[bytes], int]:
        news = self.networks.news(VNI, host, heard)
        assert news is not None
        assert all(len(message) < MAX_MESSAGE / 2 for message in news[0])
        return news


def listen(heard: Heard, messages: Iterable[bytes]) -> None:
    for message in map(CenterMessage.FromString, messages):
        if message.HasField("network"):
            assert heard.put(from_network(message.network))
        else:
            assert heard.change(from_change(message.network_change))


def test_a_change_is_one_message_and_the_same_bytes_for_all() -> None:
    ledger = Ledger()
    at = {host: ledger.news(host, None)[1] for host in HOSTS}
    ledger.apply([vm(2, "h0")])
    ledger.apply([vm(3, "h0")])
    ledger.networks.settle()
    assert ledger.told == [(VNI, set(HOSTS))], "two changes, told together"
    (first,), (second,) = (ledger.news(host, at[host])[0] for host in HOSTS)
    assert first is second
    assert len(CenterMessage.FromString(first).network_change.forwards) == 2
    _, heard = ledger.news("h0", at["h0"])
    assert ledger.news("h0", heard) == ([], heard)


def test_what_changes_nothing_for_others_is_not_told() -> None:
    ledger = Ledger()
    ledger.news("h0", None)
    ledger.apply([vm(0, "h0")])  # as it was
    ledger.networks.settle()
    assert ledger.told == []


def test_a_network_of_many_comes_in_parts_and_then_by_changes() -> None:
    ledger, heard = Ledger(), Heard("192.0.2.0")
    ledger.news("h0", None)
    ledger.apply(vm(n, "h1") for n in range(10, 10 + PART))  # too much for a change
    ledger.networks.settle()
    assert ledger.told == [(VNI, set(HOSTS))]
    parts, position = ledger.news("h0", None)
    assert len(parts) == 2
    listen(heard, parts)
    ledger.apply([vm(10, "h0")])
    changes, position = ledger.news("h0", position)
    assert len(changes) == 1 and len(changes[0]) < 200
    listen(heard, changes)
    assert len(heard.wanted[VNI].forwards) == PART, "all but the own ones"
    again, _ = ledger.news("h1", None)
    assert again[:2] == parts and again[2:] == changes, "nothing is made twice"


def test_who_is_too_far_behind_hears_the_whole() -> None:
    ledger, heard = Ledger(remembered=20_000), Heard("192.0.2.0")
    messages, position = ledger.news("h0", None)
    listen(heard, messages)
    for turn in range(10):
        ledger.apply(vm(n, HOSTS[turn % 2]) for n in range(10, 110))  # 4 kB
        ledger.networks.settle()
    messages, _ = ledger.news("h0", position)
    assert CenterMessage.FromString(messages[0]).HasField("network")
    listen(heard, messages)
    assert len(heard.wanted[VNI].forwards) == 101


def test_who_comes_back_goes_on_from_what_it_holds_if_that_is_remembered() -> None:
    ledger, heard = Ledger(), Heard("192.0.2.0")
    listen(heard, ledger.news("h0", None)[0])
    for number in (5, 6):
        ledger.apply([vm(number, "h1")])
        ledger.networks.settle()
    ((_, digest),) = heard.held()
    messages, position = ledger.news("h0", ledger.networks.heard_by_digest(VNI, digest))
    assert len(messages) == 2
    listen(heard, messages)
    assert ledger.networks.heard_by_digest(VNI, heard.held()[0][1]) == position
    assert ledger.networks.heard_by_digest(VNI, 7) == 0
