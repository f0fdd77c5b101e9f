"""An agent that comes back says what it holds, and hears what differs; nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.pb.vsignal.v1 import session_pb2 as session
from tests.support.agent import Agent
from tests.support.lab import Lab, running_lab
from tests.support.nouns import vm, vm_id


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with running_lab() as lab:
        yield lab


async def two(lab: Lab) -> tuple[Agent, Agent]:
    """Each with a VM in VNI 100; the first also with a second one."""
    host, other = await lab.agent("host-1"), await lab.agent("host-2")
    for agent, number in ((host, 1), (host, 3), (other, 2)):
        await agent.register(vm(number))
    await host.until(lambda: len(host.vms) == 2 and len(host.networks[100].forwards) == 3)
    return host, other


def kinds(agent: Agent) -> list[str | None]:
    return [message.WhichOneof("message") for message in agent.heard]


async def test_nothing_is_told_again(lab: Lab) -> None:
    host, _ = await two(lab)
    await host.detach()
    await host.attach(resume=True)
    assert kinds(host) == ["welcome", "synced"] and host.welcome is not None
    assert host.welcome.resumes and len(host.vms) == 2


async def test_what_differs_is_told_and_what_is_gone(lab: Lab) -> None:
    host, other = await two(lab)
    await host.detach()
    await other.register(vm(4))
    await host.deregister(vm_id(3), 1)
    await host.attach(resume=True)
    assert kinds(host) == ["welcome", "network_change", "network_change", "vm_gone", "synced"]
    assert set(host.vms) == {vm_id(1)}
    assert len(host.networks[100].forwards) == 3


async def test_who_holds_what_is_not_its_own_any_more_is_told_so(lab: Lab) -> None:
    host, _ = await two(lab)
    await host.detach()
    for number in (1, 3):
        await host.deregister(vm_id(number), 1)
    await host.attach(resume=True)
    assert host.vms == {} and host.networks == {}


async def test_after_a_restart_of_the_vcenter_it_goes_on(lab: Lab) -> None:
    host, other = await two(lab)
    await host.detach()
    await lab.restart()
    await host.attach(resume=True)
    assert kinds(host) == ["welcome", "synced"]
    await other.register(vm(5))
    await host.until(lambda: kinds(host)[-1] == "network_change")
    assert len(host.networks[100].forwards) == 4


async def test_a_network_is_told_whole_to_who_has_missed_something(lab: Lab) -> None:
    host, _ = await two(lab)
    before = host.networks[100]
    host.heard.clear()
    del host.networks[100]
    await host.say(resync=session.Resync(vni=100))
    await host.until(lambda: 100 in host.networks and host.networks[100].digest == before.digest)
    assert kinds(host)[0] == "network"
    await host.say(resync=session.Resync(vni=777))  # of no concern to it: nothing is said
    await host.register(vm(6))
    await host.until(lambda: vm_id(6) in host.vms)
    assert "network_gone" not in kinds(host)
