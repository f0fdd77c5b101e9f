"""VMs that nobody has known go a short way from their bytes into rows.

Whatever is said, in whatever order: the ledger is the same, byte for byte, as if every VM had gone
the long way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.codec.checker import Checker
from common.codec.vm import from_vm
from common.errors import Refusal
from common.model.operation import HostedState
from common.model.profile import Capability, Profile
from common.model.server import Server, VirtualNetwork
from common.pb.vsignal.v1 import signaling_pb2, types_pb2
from tests.support import nouns
from tests.support.held import HandClock
from vcenter.core import keys
from vcenter.core.command import Command
from vcenter.core.deregister import Deregister
from vcenter.core.enter import Enter
from vcenter.core.inventory import PutNetwork, PutTenant
from vcenter.core.overlay import Overlay
from vcenter.core.register import Evidence, Register
from vcenter.core.servers import AttachServer
from vcenter.core.sync_group import PutGroup
from vcenter.core.table import NewVm
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.writer import Done
from vcenter.store.memory import MemoryStore
from vcenter.wire.register import read_register

DECLARED: tuple[Command, ...] = (
    PutTenant("blue"),
    PutTenant("red"),
    PutNetwork(VirtualNetwork("blue-net", "blue", (100,))),
    PutNetwork(VirtualNetwork("two-net", "blue", (200, 201))),
    PutGroup("blue", "web", Profile(priority=3)),
    AttachServer(Server("h1", capabilities=frozenset(Capability))),
    AttachServer(Server("h2")),
)
Said: TypeAlias = tuple[str, signaling_pb2.RegisterRequest, Evidence | None]
EVIDENCE = Evidence(1, HostedState.ABSENT, HostedState.RUNNING)
NUMBERS = st.integers(1, 4)
NICS = st.builds(
    types_pb2.Interface,
    mac=NUMBERS.map(nouns.mac),
    ips=st.lists(NUMBERS.map(nouns.ip) | st.sampled_from(["fd00::1", "2001:db8::2"]), max_size=2),
    network=st.sampled_from(["blue-net", "blue-net", "two-net", "nowhere", ""]),
    vni=st.sampled_from([100, 100, 100, 200, 0]),
)
VMS = st.builds(
    types_pb2.Vm,
    vm_id=NUMBERS.map(nouns.vm_id),
    name=st.sampled_from(["", "web-1", "ü" * 60]),
    tenant=st.sampled_from(["blue", "blue", "blue", "red", "unknown", ""]),
    group=st.sampled_from(["web", "web", "none", ""]),
    interfaces=st.lists(NICS, max_size=2),
    profile=st.none() | st.sampled_from([types_pb2.Profile(priority=1), nouns.deny_ssh()]),
    resources=st.builds(types_pb2.Resources, vcpus=st.just(2), memory_mib=st.integers(0, 1)),
)
REGISTERS = st.tuples(
    st.sampled_from(["h1", "h1", "h2", "h9"]),
    st.builds(
        signaling_pb2.RegisterRequest,
        vm=VMS,
        state=st.sampled_from([1, 1, 1, 2, 3, 4]),
        epoch=st.sampled_from([0, 0, 1, 5]),
    ),
    st.none() | st.just(EVIDENCE),
)


def good(number: int, address: int, host: str = "h1", epoch: int = 0) -> Said:
    """One that goes the short way, if nobody has known it."""
    nic = nouns.interface(address, vni=100)
    wire = nouns.vm(number, group="web", interfaces=[nic])
    return host, signaling_pb2.RegisterRequest(vm=wire, state=1, epoch=epoch), None


GOOD = st.builds(good, NUMBERS, NUMBERS, st.sampled_from(["h1", "h2"]), st.sampled_from([0, 1, 5]))
OTHERS = st.builds(Deregister, st.just("h1"), NUMBERS.map(nouns.vm_id), st.sampled_from([1, 5]))
GROUPS = st.builds(PutGroup, st.just("blue"), st.just("web"), st.just(Profile(priority=4)))


def is_right(said: Said | Command) -> bool:
    """What is wrong in itself is refused before it becomes a command."""
    if not isinstance(said, tuple):
        return True
    check = Checker()
    from_vm(check, said[1].vm)
    return not check.violations


def short(said: Said) -> Command:
    server_id, request, evidence = said
    command = read_register(request, server_id)
    return command if evidence is None else command.knowing(evidence)


def long(said: Said) -> Command:
    server_id, request, evidence = said
    known = read_register(request, server_id)
    vm = from_vm(Checker(), request.vm)
    return Register(server_id, vm, known.state, request.epoch, evidence)


async def carry_out(together: Sequence[Sequence[Command]]) -> list[Any]:
    """Everything that can be seen of it: answers, what is stored, events, and the table."""
    store = MemoryStore()
    ledger = Ledger(store, HandClock())
    await ledger.open()
    writing = asyncio.create_task(ledger.writer.run())
    events: list[Any] = []
    ledger.feed.listen(
        lambda c: events.append([(c.revision, a.kind, a.key, a.before, a.after) for a in c.changes])
    )
    answers = [seen(answer) for some in together for answer in await ledger.submit_all(some)]
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    await ledger.audit.flush()
    audited = ledger.audit.journal.read(10_000, lambda _: True, 10_000)
    stored = [record async for page in store.snapshot() for record in page]
    log = [entry async for entry in store.read(0)]
    vms = {name: held for name, held in vars(ledger.table.vms).items() if name != "_numbers"}
    return [answers, events, stored, log, vms, audited, ledger.table.revision]


def seen(answer: Done | Exception) -> object:
    if isinstance(answer, Refusal):
        return answer.reason, answer.message, answer.evidence, answer.violations
    return answer


SAID = st.lists(GOOD | REGISTERS | OTHERS | GROUPS, min_size=1, max_size=8)
GONE = Deregister("h1", nouns.vm_id(1), 1)


@given(chunks=st.lists(SAID, max_size=4))
@example(chunks=[[good(1, 1)], [GONE], [good(1, 1)], [good(1, 2, epoch=1)]])
@example(chunks=[[good(1, 1), GONE, good(1, 1), good(1, 2, epoch=1)]])
@example(chunks=[[good(1, 1), good(1, 2), good(2, 1), good(2, 2)]])
@example(chunks=[[good(1, 1), good(2, 1)], [GONE], [good(3, 1)], [good(2, 1)]])  # in dispute
@settings(max_examples=200, deadline=None)
def test_the_short_way_and_the_long_way_give_the_same_ledger(
    chunks: list[list[Said | Command]],
) -> None:
    ways = []
    for way in (short, long):
        together = [
            [way(s) if isinstance(s, tuple) else s for s in chunk if is_right(s)]
            for chunk in chunks
        ]
        ways.append(asyncio.run(carry_out([DECLARED, *together])))
    assert ways[0] == ways[1]


def test_a_vm_that_nobody_has_known_goes_the_short_way() -> None:
    async def entered() -> None:
        ledger = Ledger(MemoryStore(), HandClock())
        await ledger.open()
        table = ledger.table
        for command in DECLARED:
            table.apply(table.revision + 1, command.decide(table, 0).changes)
        view = Overlay(table)
        nic = nouns.interface(1, vni=100, ips=[nouns.ip(1), "fd00::1"])
        new = nouns.vm(1, interfaces=[nic], group="web", profile=nouns.deny_ssh())
        request = signaling_pb2.RegisterRequest(vm=new, state=1)
        command = read_register(request, "h1")
        assert isinstance(command, Enter) and command.called == "Register"
        (change,) = command.decide(view, 0).changes
        assert isinstance(change, NewVm) and change.key == keys.vm(nouns.vm_id(1))
        view.add((change,))
        again = read_register(request, "h2")
        assert again.decide(view, 0).reply.confirm is not None, "known by then: the long way"

    asyncio.run(entered())
