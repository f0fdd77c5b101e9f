"""One agent, between a vCenter of few words and a host in memory."""

from __future__ import annotations

import asyncio

from common.errors import Reason, Refusal
from common.model.profile import Profile, Rate
from common.model.vm import VmState
from common.model.wanted import PortState
from common.pb.vsignal.v1 import session_pb2
from tests.unit.agent_bench import BLUE, bench, settle, until
from tests.unit.agent_center import whole
from tests.unit.agent_values import OTHER, RATED, VM, wanted
from vserver.network.port import Port


async def test_it_introduces_itself() -> None:
    async with bench() as b:
        server = b.center.hellos[0].server
        assert server.server_id == server.name == "host-1"
        assert server.hypervisor == "memory" and server.capacity.memory_mib > 0
        assert len(server.capabilities) == 3 and b.center.hellos[0].version == "test"


async def test_a_host_comes_up_in_any_order() -> None:
    """The network first, which closes every tap; then the agent waits for the hypervisor."""
    async with bench() as b:
        await b.stop()
        b.hypervisor.disconnect()
        hellos = len(b.center.hellos)
        starting = asyncio.create_task(b.start())
        await settle()
        assert b.agent.plane.capabilities and len(b.center.hellos) == hellos
        b.hypervisor.reconnect()
        await starting
        assert len(b.center.hellos) == hellos + 1


async def test_an_agent_that_waits_for_its_hypervisor_can_be_stopped() -> None:
    async with bench() as b:
        await b.stop()
        b.hypervisor.disconnect()
        starting = asyncio.create_task(b.start())
        await settle()
        await asyncio.wait_for(b.stop(), 1.0)
        starting.cancel()
        b.hypervisor.reconnect()


async def test_a_vm_is_registered_and_its_port_opened_when_it_is_wanted_so() -> None:
    async with bench() as b:
        b.create()
        b.center.synced()
        await until(lambda: len(b.center.registered) == 1)
        assert b.center.registered[0].vm.vm_id == VM
        await settle()
        assert not b.ports, "closed by default: nobody wants it yet"
        b.center.tell(BLUE, wanted(profile=RATED))
        await until(lambda: b.open_ports() == {"vnet0"})
        assert b.ports["vnet0"].profile == RATED


async def test_a_change_of_profile_or_state_is_put_in_force() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        b.center.tell(wanted(profile=RATED))
        await until(lambda: b.ports["vnet0"].profile == RATED)
        b.center.tell(wanted(profile=RATED, ports=PortState.CLOSED))
        await until(lambda: not b.open_ports())
        b.center.gone(VM)
        await until(lambda: not b.ports)


async def test_a_failure_is_one_port_s_own_and_is_reported() -> None:
    async with bench() as b:
        b.create()
        b.create(OTHER)
        b.center.tell(BLUE, wanted(profile=Profile(vlan=7)), wanted(OTHER, profile=RATED))
        b.center.synced()
        await until(lambda: len(b.open_ports()) == 1)

        def reported() -> dict[str, tuple[str, str]]:
            last = b.center.reports[-1].vms if b.center.reports else []
            return {vm.vm_id: (vm.applied_hash, vm.port_problem) for vm in last}

        await until(lambda: reported().get(OTHER) == (RATED.digest(), ""))
        await until(lambda: "vlan" in reported()[VM][1])
        assert reported()[VM][0] == ""


async def test_what_somebody_changed_behind_its_back_is_mended() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        b.kernel.tamper("vnet0")
        await b.agent.plane.refresh()
        b.agent.executor.wake.ring()
        await until(lambda: not b.kernel.broken)


async def test_nothing_changes_while_the_vcenter_is_away() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        b.center.away = True
        b.center.cut()
        await until(lambda: b.agent.session.link is None)
        b.hypervisor.stop(VM)
        await until(lambda: not b.ports)
        b.hypervisor.start(VM)
        await until(lambda: b.open_ports() == {"vnet1"})


async def test_a_restart_changes_nothing() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        before: dict[str, Port] = dict(b.ports)
        await b.stop()
        assert b.ports == before and b.hypervisor.vms[VM].state is VmState.RUNNING
        await b.start()
        await settle()
        assert b.ports == before, "nothing is touched before the first Synced"
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await settle()
        assert b.ports == before and not b.center.deregistered


async def test_a_hypervisor_that_does_not_answer_closes_and_deregisters_nothing() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        b.hypervisor.disconnect()
        await b.agent.guests.refresh()
        b.center.tell(wanted(profile=RATED))
        await until(lambda: b.ports["vnet0"].profile == RATED)
        assert not b.center.deregistered
        reports = len(b.center.reports)
        await until(lambda: len(b.center.reports) > reports)  # the lease is renewed all the same


async def test_a_vm_that_is_gone_is_deregistered() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted(epoch=3))
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        b.hypervisor.stop(VM)
        b.hypervisor.undefine(VM)
        await until(lambda: bool(b.center.deregistered))
        assert b.center.deregistered[0].epoch == 3


async def test_a_refusal_is_shown_in_reports() -> None:
    async with bench() as b:
        b.center.refusal = Refusal(Reason.CLAIM_HELD, "10.1.0.1 is held")
        b.create()
        b.center.synced()
        await until(
            lambda: any("CLAIM_HELD" in vm.port_problem for r in b.center.reports for vm in r.vms)
        )
        b.center.refusal = None
        await until(lambda: b.center.reports[-1].vms[0].port_problem == "")


async def test_reports_come_on_the_beat() -> None:
    async with bench() as b:
        b.center.synced()
        await until(lambda: len(b.center.reports) >= 2)
        assert b.center.reports[-1].complete and not b.center.reports[-1].vms


async def test_a_report_comes_at_once_when_a_vm_comes() -> None:
    async with bench() as b:
        await b.stop()
        b.center.lease_s = 3600.0  # no beat before this test is over
        await b.start()
        b.center.synced()
        b.create()
        await until(lambda: any(len(report.vms) == 1 for report in b.center.reports))


async def test_questions_are_answered_with_the_hypervisor_s_truth() -> None:
    async with bench() as b:
        b.create()
        b.center.ask(VM)
        await until(lambda: bool(b.center.answers))
        b.hypervisor.disconnect()
        b.center.ask(VM)
        await until(lambda: len(b.center.answers) == 2)
        states = [session_pb2.HOSTED_STATE_RUNNING, session_pb2.HOSTED_STATE_UNKNOWN]
        assert [answer.state for answer in b.center.answers] == states


async def test_it_fails_over_to_the_next_vcenter() -> None:
    async with bench(centers=2) as b:
        first, second = b.centers
        b.create()
        first.tell(BLUE, wanted())
        first.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        first.away = True
        first.cut()
        await until(lambda: b.agent.session.link is second)
        second.tell(BLUE, wanted(profile=Profile(ingress_rate=Rate(16_000_000))))
        second.synced()
        await until(lambda: b.ports["vnet0"].profile.ingress_rate is not None)
        assert b.open_ports() == {"vnet0"}


async def test_what_it_does_not_understand_is_ignored() -> None:
    async with bench() as b:
        b.create()
        b.center.wire.down.put_nowait(session_pb2.CenterMessage())
        malformed = session_pb2.CenterMessage(vm=session_pb2.WantedVm(epoch=9))
        b.center.wire.down.put_nowait(malformed)
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        assert len(b.center.hellos) == 1


async def test_told_to_come_again_later_it_comes_later() -> None:
    async with bench() as b:
        told = Refusal(Reason.OVERLOADED, "others first", retry_after=0.6)
        b.center.turned_away = told
        b.center.cut()
        await until(lambda: len(b.center.hellos) == 2)
        b.center.turned_away = None
        began = b.clock.monotonic()
        await until(lambda: len(b.center.hellos) == 3)
        assert b.clock.monotonic() - began > 0.55


async def test_it_says_what_it_holds_and_asks_for_what_it_missed() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted())
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        missed = session_pb2.NetworkChange(vni=BLUE.vni, revision=2, before=1, digest=2)
        b.center.wire.down.put_nowait(session_pb2.CenterMessage(network_change=missed))
        await until(lambda: b.center.resyncs == [BLUE.vni])
        b.center.cut()
        await until(lambda: len(b.center.hellos) == 2)
        hello = b.center.hellos[-1]
        assert [vm.vm_id for vm in hello.vms] == [VM]
        assert [(n.vni, n.digest) for n in hello.networks] == [(BLUE.vni, whole(BLUE).digest)]
