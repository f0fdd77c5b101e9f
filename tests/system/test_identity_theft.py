"""An identity that another has is refused, shown with both sides' evidence, and alarmed about at
once; one that changes hands too often is frozen until an operator thaws it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from common.clock import SystemClock
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2 as directory
from common.pb.vsignal.v1 import inventory_pb2 as inventory
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, RUNNING, Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab, running_lab
from tests.support.nouns import by_id, by_ip, interface, ip, mac, vm, vm_id

VM = vm_id(1)
WITHIN_S = 2.0


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Real time: how long an alarm takes is what is asked."""
    async with running_lab("sqlite", clock=SystemClock(), freeze_seconds=60.0) as lab:
        yield lab


@pytest.fixture
async def hosts(lab: Lab) -> tuple[Agent, Agent]:
    return await lab.agent("host-1"), await lab.agent("host-2")


class Alarm:
    """The next alert that an operator's watch shows, and how long it took."""

    def __init__(self, lab: Lab) -> None:
        request = directory.WatchRequest(from_revision=lab.revision)
        self._call = lab.operator.directory.Watch(request)
        self._task = asyncio.create_task(self._first())
        self._begun = time.monotonic()

    async def _first(self) -> tuple[types.Alert, float]:
        async for event in self._call:
            if event.HasField("alert"):
                return event.alert, time.monotonic() - self._begun
        raise AssertionError("the watch ended")

    async def heard(self) -> types.Alert:
        try:
            alert, took = await self._task
        finally:
            self._call.cancel()
        assert took < WITHIN_S, f"{took:.2f} s"
        return alert


@pytest.mark.parametrize("what", ["mac", "ip"])
async def test_a_stolen_address_is_alarmed_about_with_both_sides(
    lab: Lab, hosts: tuple[Agent, Agent], what: str
) -> None:
    await hosts[0].register(vm(1))
    before = await lab.record(VM)
    alarm = Alarm(lab)
    stolen = {"mac": mac(1)} if what == "mac" else {"ips": [ip(1)]}
    refusal = await refusal_of(hosts[1].register(vm(2, interfaces=[interface(2, **stolen)])))
    alert = await alarm.heard()
    assert (refusal.reason, alert.reason) == (Reason.CLAIM_HELD, "CLAIM_HELD")
    assert alert.severity == types.SEVERITY_CRITICAL
    sides = ("holder", "holder_server", "claimant", "claimant_server")
    told = [alert.evidence[side] for side in sides]
    assert told == [VM, "host-1", vm_id(2), "host-2"]
    assert await lab.record(VM) == before
    assert hosts[0].vms[VM].ports == 2 and vm_id(2) not in hosts[1].vms


async def test_a_vm_that_runs_twice_is_alarmed_about(lab: Lab, hosts: tuple[Agent, Agent]) -> None:
    await hosts[0].register(vm(1))
    hosts[0].truth[VM] = hosts[1].truth[VM] = RUNNING
    alarm = Alarm(lab)
    refusal = await refusal_of(hosts[1].register(vm(1)))
    alert = await alarm.heard()
    assert refusal.reason is Reason.RUNNING_IN_TWO_PLACES
    assert (alert.evidence["owner"], alert.evidence["claimant"]) == ("host-1", "host-2")


async def test_a_vm_of_another_tenant_is_refused_without_a_word_of_where_it_is(
    lab: Lab, hosts: tuple[Agent, Agent]
) -> None:
    await hosts[0].register(vm(1))
    hosts[0].truth[VM] = hosts[1].truth[VM] = RUNNING
    alarm = Alarm(lab)
    refusal = await refusal_of(hosts[1].register(vm(1, "red")))
    alert = await alarm.heard()
    assert refusal.evidence == {} and "host-1" not in refusal.message
    assert alert.evidence["owner"] == "host-1"
    assert (alert.evidence["owner_tenant"], alert.evidence["claimant_tenant"]) == ("blue", "red")


async def flap(hosts: tuple[Agent, Agent], turn: int) -> None:
    """The VM appears on the other host, and both hypervisors say so."""
    here, there = hosts[turn % 2], hosts[(turn + 1) % 2]
    here.truth[VM], there.truth[VM] = RUNNING, ABSENT
    await here.register(vm(1))


async def test_five_changes_of_owner_freeze_a_vm_until_it_is_thawed(
    lab: Lab, hosts: tuple[Agent, Agent]
) -> None:
    await hosts[0].register(vm(1))
    for turn in range(1, 5):
        await flap(hosts, turn)
    assert (await lab.record(VM)).location.server_id == "host-1"
    alarm = Alarm(lab)
    with pytest.raises(Exception, match="frozen with host-1"):
        await flap(hosts, 5)
    alert = await alarm.heard()
    assert alert.reason == "IDENTITY_FROZEN"
    assert [k for k in sorted(alert.evidence) if k.startswith("turn")] == [
        f"turn.{n}" for n in range(1, 6)
    ]

    await lab.restart()  # it is durable
    refusal = await refusal_of(hosts[1].register(vm(1)))
    assert refusal.reason is Reason.IDENTITY_FROZEN
    again = await hosts[0].register(vm(1))
    assert again.record.location.server_id == "host-1", "its owner goes on"

    thaw = inventory.ThawVmRequest(key=by_id(1))
    await lab.operator.inventory.ThawVm(thaw)
    await hosts[1].register(vm(1))
    assert (await lab.record(VM)).location.server_id == "host-2"
    assert (await refusal_of(lab.operator.inventory.ThawVm(thaw))).reason is Reason.NOT_FROZEN


async def test_an_address_that_two_vms_take_in_turns_is_frozen(
    lab: Lab, hosts: tuple[Agent, Agent]
) -> None:
    first, second = vm(1), vm(2, interfaces=[interface(2, ips=[ip(1)])])
    await hosts[0].register(first)
    await refusal_of(hosts[1].register(second))  # from now on it is watched
    owner = [(hosts[0], first), (hosts[1], second)]
    for turn in range(1, 5):
        host, had = owner[(turn + 1) % 2]
        await host.deregister(had.vm_id, (await lab.record(had.vm_id)).location.epoch)
        host, has = owner[turn % 2]
        await host.register(has)
    host, had = owner[0]
    await host.deregister(had.vm_id, (await lab.record(had.vm_id)).location.epoch)
    refusal = await refusal_of(hosts[1].register(second))
    assert refusal.reason is Reason.IDENTITY_FROZEN
    assert refusal.evidence["identity"] == f"100/{ip(1)}"
    await hosts[0].register(first)  # whom it is frozen with may have it back
    await hosts[0].deregister(VM, (await lab.record(VM)).location.epoch)
    await lab.operator.inventory.ThawVm(inventory.ThawVmRequest(key=by_ip(1)))
    await hosts[1].register(second)


async def test_claims_that_are_refused_freeze_nobody(lab: Lab, hosts: tuple[Agent, Agent]) -> None:
    """Else a thief could take its victim out of service."""
    await hosts[0].register(vm(1))
    stolen = vm(2, interfaces=[interface(2, ips=[ip(1)])])
    for _ in range(20):
        assert (await refusal_of(hosts[1].register(stolen))).reason is Reason.CLAIM_HELD
    assert len(await lab.alerts()) == 1
    await flap(hosts, 1)
    assert (await lab.record(VM)).location.server_id == "host-2"
