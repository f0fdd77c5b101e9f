"""5.7, VM Report (A19, A10): states, usage, and who is overloaded, unused, least used."""

from __future__ import annotations

from typing import Any

import pytest

from common.codec.times import from_duration
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2 as directory
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.nouns import by_id, vm, vm_id

VM = vm_id(1)


def status(
    number: int = 1, state: int = types.VM_STATE_RUNNING, epoch: int = 1, **more: Any
) -> pb.VmStatus:
    return pb.VmStatus(vm_id=vm_id(number), state=state, epoch=epoch, **more)


async def servers(lab: Lab, **request: Any) -> list[str]:
    answer = await lab.operator.directory.ListServers(directory.ListServersRequest(**request))
    return [load.server.server_id for load in answer.servers]


@pytest.fixture
async def host(lab: Lab) -> Agent:
    agent = await lab.agent("host-1")
    await agent.register(vm(1))
    return agent


async def test_a_state_that_changed_becomes_the_ledgers(lab: Lab, host: Agent) -> None:
    for state in (types.VM_STATE_PAUSED, types.VM_STATE_SHUT_OFF, types.VM_STATE_RUNNING):
        await host.report(status(state=state))
        location = (await lab.record(VM)).location
        assert (location.state, location.epoch) == (state, 1)


async def test_a_beat_without_news_writes_nothing(lab: Lab, host: Agent) -> None:
    with lab.nothing_changes():
        reply = await host.report(status(cpu_percent=50), server=pb.ServerStatus(cpu_percent=12))
    assert from_duration(reply.lease) == 300
    assert reply.revision == lab.revision


async def test_reports_are_heard_on_the_stream_too(lab: Lab, host: Agent) -> None:
    before = lab.revision
    await host.say(report=pb.ReportRequest(vms=[status(state=types.VM_STATE_PAUSED)]))
    await host.until(lambda: host.synced > before)
    assert (await lab.record(VM)).location.state == types.VM_STATE_PAUSED


async def test_vms_that_are_not_registered_to_the_caller_are_named(lab: Lab, host: Agent) -> None:
    other = await lab.agent("host-2")
    await other.register(vm(2))
    with lab.nothing_changes():
        reply = await host.report(status(1), status(2), status(3))
    assert list(reply.unknown) == [vm_id(2), vm_id(3)]


@pytest.mark.parametrize("epoch", [0, 2])
async def test_a_report_of_another_epoch_is_no_news(lab: Lab, host: Agent, epoch: int) -> None:
    with lab.nothing_changes():
        await host.report(status(state=types.VM_STATE_PAUSED, epoch=epoch))


@pytest.mark.parametrize("state", [types.VM_STATE_UNSPECIFIED, types.VM_STATE_LOST_NEEDS_FENCE])
async def test_a_state_that_no_host_can_say_is_refused(lab: Lab, host: Agent, state: int) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(host.report(status(state=state)))
    assert [violation.field for violation in refusal.violations] == ["vms[0].state"]


async def test_a_report_has_at_most_ten_thousand_vms(lab: Lab, host: Agent) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(host.report(*[status()] * 10_001))
    assert refusal.reason is Reason.TOO_LARGE


async def test_the_last_status_of_a_vm_can_be_read(lab: Lab, host: Agent) -> None:
    said = status(cpu_percent=12.5, memory_used_mib=100, applied_hash="ab", port_problem="why")
    await host.report(said)
    request = directory.GetVmRequest(key=by_id(1))
    assert (await lab.operator.directory.GetVm(request)).status == said


async def test_overloaded_unused_and_least_used_are_known(lab: Lab, host: Agent) -> None:
    await lab.agent("host-2")
    full = await lab.agent("host-3", capacity=types.Resources(vcpus=4, memory_mib=1000))
    for number in (2, 3):
        await full.register(vm(number))
    assert await servers(lab, load=directory.LOAD_NORMAL) == ["host-1"]
    assert await servers(lab, load=directory.LOAD_UNUSED) == ["host-2"]
    assert await servers(lab, load=directory.LOAD_OVERLOADED) == ["host-3"]
    assert await servers(lab, least_used_only=True) == ["host-2"]
    load = await lab.server("host-3")
    assert (load.server.vms, load.server.committed.memory_mib) == (2, 1024)
    assert load.committed_share == pytest.approx(1.024)


async def test_hosts_are_listed_in_pages_of_what_was_asked_for(lab: Lab) -> None:
    for number in range(5):
        host = await lab.agent(f"host-{number}")
        if number != 2:
            await host.register(vm(number + 1))
    request = directory.ListServersRequest(load=directory.LOAD_NORMAL, page_size=3)
    first = await lab.operator.directory.ListServers(request)
    assert [s.server.server_id for s in first.servers] == ["host-0", "host-1", "host-3"]
    request.page_token = first.next_page_token
    rest = await lab.operator.directory.ListServers(request)
    assert [s.server.server_id for s in rest.servers] == ["host-4"] and not rest.next_page_token


async def test_a_busy_host_is_overloaded_until_it_says_otherwise(lab: Lab, host: Agent) -> None:
    busy = pb.ServerStatus(cpu_percent=95, memory_free_mib=10, memory_total_mib=100)
    await host.report(server=busy)
    load = await lab.server("host-1")
    assert (load.load, load.status) == (directory.LOAD_OVERLOADED, busy)
    assert load.server.last_seen.seconds > 0
    await host.report(server=pb.ServerStatus(cpu_percent=10))
    assert (await lab.server("host-1")).load == directory.LOAD_NORMAL


async def test_a_host_that_never_attached_reports_in_vain(lab: Lab) -> None:
    stranger = lab.client("vserver/host-9")
    refusal = await refusal_of(stranger.signaling.Report(pb.ReportRequest()))
    assert refusal.reason is Reason.UNKNOWN_SERVER
