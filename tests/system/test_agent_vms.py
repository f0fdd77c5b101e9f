"""VMs that come, change and go by themselves, between a real agent and a real vCenter."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from common.model.vm import VmState
from common.pb.vsignal.v1 import inventory_pb2
from tests.system.agents import OPERATOR, VM_ID, VNI, a_vm, until, world

VM = VM_ID.format(1)


async def test_a_vm_is_known_a_moment_after_it_started() -> None:
    async with world() as w:
        host = await w.host()
        host.hypervisor.create(a_vm())
        await until(lambda: host.open_ports() == {"vnet0"})
        record = w.center.ledger.table.vm(VM)
        assert record is not None and record.location.server_id == "host-1"
        assert record.location.state is VmState.RUNNING and record.vm.tenant == "acme"


async def test_the_ledger_follows_its_state() -> None:
    async with world() as w:
        host = await w.host()
        host.hypervisor.create(a_vm())

        def state() -> VmState | None:
            record = w.center.ledger.table.vm(VM)
            return record.location.state if record is not None else None

        await until(lambda: state() is VmState.RUNNING)
        host.hypervisor.pause(VM)
        await until(lambda: state() is VmState.PAUSED)
        host.hypervisor.stop(VM)
        await until(lambda: state() is VmState.SHUT_OFF and not host.open_ports())
        host.hypervisor.start(VM)
        await until(lambda: state() is VmState.RUNNING and len(host.open_ports()) == 1)
        host.hypervisor.stop(VM)
        host.hypervisor.undefine(VM)
        await until(lambda: w.owner() == "")
        host.hypervisor.create(a_vm())
        await until(lambda: w.owner() == "host-1" and w.epoch() == 2)
        await until(lambda: len(host.open_ports()) == 1)


async def test_a_vm_without_a_tenant_stays_closed_until_it_is_assigned() -> None:
    async with world() as w:
        host = await w.host()
        host.hypervisor.create(a_vm(tenant=""))
        await until(lambda: w.owner() == "host-1")
        await asyncio.sleep(0.2)
        assert not host.open_ports()
        attachment = inventory_pb2.AssignVmRequest.Attachment(
            mac=a_vm().interfaces[0].mac, network="blue", vni=VNI, ips=["10.1.0.1"]
        )
        request = inventory_pb2.AssignVmRequest(vm_id=VM, tenant="acme", interfaces=[attachment])
        await w.inventory.AssignVm(request, metadata=OPERATOR)
        await until(lambda: host.open_ports() == {"vnet0"})


async def test_a_claim_that_another_vm_holds_keeps_the_port_closed() -> None:
    async with world() as w:
        a, b = await w.host(), await w.host()
        a.hypervisor.create(a_vm(1))
        await until(lambda: w.owner(1) == "host-1")
        thief = a_vm(2)
        nic = replace(thief.interfaces[0], ips=("10.1.0.1",))
        b.hypervisor.create(replace(thief, interfaces=(nic,)))

        def problem() -> str:
            agent = b.agent
            return agent.announcing.problem(VM_ID.format(2)) if agent is not None else ""

        await until(lambda: problem().startswith("CLAIM_HELD"))
        assert w.owner(2) == "" and not b.open_ports() and len(a.open_ports()) == 1


async def test_a_vm_that_somebody_moved_by_hand_is_found_again() -> None:
    async with world() as w:
        a, b = await w.host(), await w.host()
        a.hypervisor.create(a_vm())
        await until(lambda: len(a.open_ports()) == 1)
        a.hypervisor.migrate_by_hand(VM, b.hypervisor)
        await until(lambda: w.owner() == "host-2" and len(b.open_ports()) == 1)
        assert w.epoch() == 2
        await until(lambda: not a.fabric.host(a.vtep).ports)
        b.hypervisor.migrate_by_hand(VM, a.hypervisor)
        await until(lambda: w.owner() == "host-1" and len(a.open_ports()) == 1)
        assert w.epoch() == 3
        await asyncio.sleep(2.5)
        assert w.owner() == "host-1", "no late farewell from the old host"


async def test_a_vm_that_runs_twice_is_closed_where_it_does_not_belong() -> None:
    async with world() as w:
        a, b = await w.host(), await w.host()
        a.hypervisor.create(a_vm())
        await until(lambda: len(a.open_ports()) == 1)
        b.hypervisor.create(a_vm())

        def problem() -> str:
            return b.agent.announcing.problem(VM) if b.agent is not None else ""

        await until(lambda: problem().startswith("RUNNING_IN_TWO_PLACES"), within=10)
        assert w.owner() == "host-1" and not b.open_ports() and len(a.open_ports()) == 1


async def test_a_restart_of_the_agent_changes_nothing() -> None:
    async with world() as w:
        host = await w.host()
        host.hypervisor.create(a_vm())
        await until(lambda: host.open_ports() == {"vnet0"})
        revision = w.center.ledger.table.vm(VM)
        for end in (host.stop, host.kill):
            await end()
            assert host.open_ports() == {"vnet0"}
            host.boot(w.target)
            await w.attached(host)
            await asyncio.sleep(0.2)
            assert host.open_ports() == {"vnet0"} and w.center.ledger.table.vm(VM) == revision
