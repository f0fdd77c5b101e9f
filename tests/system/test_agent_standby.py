"""Standbys between real agents ordered by a real vCenter: kept in step, promoted, cleared away."""

from __future__ import annotations

from common.model.disk import Disk
from common.model.server import Liveness
from common.model.vm import VmState
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from tests.system.agents import OPERATOR, VM_ID, Host, World, a_vm, until, world
from vcenter.store.memory import MemoryStore
from vserver.hypervisor.memory_disks import MemoryFile

VM = VM_ID.format(1)
ROOT = Disk("/images/root.qcow2", "qcow2", 64 << 20)
MIRRORING, SUCCEEDED = operations.PHASE_MIRRORING, operations.PHASE_SUCCEEDED
CANCELLED = operations.PHASE_CANCELLED


async def in_step(w: World) -> tuple[Host, Host, operations.Operation]:
    """A VM on the first host, whose standby is on the second."""
    a, b = await w.host(), await w.host()
    a.hypervisor.disks.files[ROOT.path] = MemoryFile(ROOT.bytes, "at first")
    a.hypervisor.create(a_vm(), disks=(ROOT,))
    await until(lambda: w.state() is VmState.RUNNING)
    request = signaling.ReplicateRequest(vm_id=VM, near=b.name, standby=True, plan_only=True)
    while (await w.signaling.Replicate(request, metadata=OPERATOR)).objections:
        pass  # its host has not said yet what there is to copy
    request.plan_only = False
    begun = (await w.signaling.Replicate(request, metadata=OPERATOR)).operation
    await w.reached(begun, MIRRORING)
    await watched(w, begun)
    return a, b, begun


async def watched(w: World, begun: operations.Operation) -> None:
    """Until the VM's host has said once more how far it is: it has seen then that the copy is in
    step, and a guest that goes off later leaves a whole one."""
    request = operations.GetOperationRequest(operation_id=begun.operation_id)
    said = aiter(w.operations.Follow(request, metadata=OPERATOR))
    for _ in ("as it is", "as it was said next"):
        assert (await anext(said)).phase == MIRRORING


async def phase(w: World, operation: operations.Operation) -> int:
    request = operations.GetOperationRequest(operation_id=operation.operation_id)
    return (await w.operations.Get(request, metadata=OPERATOR)).phase


async def promoted(w: World) -> operations.Operation:
    request = operations.PromoteRequest(vm_id=VM)
    return await w.done(await w.operations.Promote(request, metadata=OPERATOR))


def is_silent(w: World, host: Host) -> bool:
    return w.center.ledger.table.must_server(host.name).liveness is Liveness.SILENT


def content(host: Host) -> str:
    return host.hypervisor.disks.files[ROOT.path].content


def nothing_left(host: Host) -> bool:
    machine = host.hypervisor
    return not (machine.receiving or machine.mirrors or machine.disks.made)


async def test_what_the_guest_wrote_last_is_there_when_its_standby_runs() -> None:
    async with world() as w:
        a, b, _ = await in_step(w)
        assert VM not in b.hypervisor.vms, "nobody can start it there by mistake"
        assert not b.fabric.host(b.vtep).ports
        a.hypervisor.write(VM, ROOT.path, "the marker")
        a.hypervisor.crash()
        await a.kill()
        await until(lambda: is_silent(w, a), within=60)
        fence = operations.FenceRequest(server_id=a.name, word="it burns")
        await w.operations.Fence(fence, metadata=OPERATOR)
        done = await promoted(w)
        assert done.phase == SUCCEEDED, done
        assert (w.running_on(), w.owner(), w.epoch()) == ([b.name], b.name, 2)
        assert content(b) == "the marker"
        await until(lambda: bool(b.open_ports()))
        assert nothing_left(b)


async def test_one_whose_original_was_shut_down_is_promoted_and_the_original_stays_off() -> None:
    async with world() as w:
        a, b, _ = await in_step(w)
        a.hypervisor.write(VM, ROOT.path, "its last words")
        a.hypervisor.stop(VM)
        await until(lambda: w.state() is VmState.SHUT_OFF)
        assert (await promoted(w)).phase == SUCCEEDED
        assert (w.running_on(), content(b)) == ([b.name], "its last words")
        await until(lambda: nothing_left(a))
        await until(lambda: not a.open_ports(), within=60)


async def test_a_cancelled_one_leaves_nothing_on_either_host() -> None:
    async with world() as w:
        a, b, begun = await in_step(w)
        request = operations.CancelOperationRequest(operation_id=begun.operation_id)
        await w.operations.Cancel(request, metadata=OPERATOR)
        assert (await w.done(begun)).phase == CANCELLED
        assert nothing_left(a) and nothing_left(b) and not b.hypervisor.disks.files
        assert w.running_on() == [a.name]


async def test_one_whose_vm_was_removed_goes_with_it() -> None:
    async with world() as w:
        a, b, begun = await in_step(w)
        a.hypervisor.stop(VM)
        a.hypervisor.undefine(VM)
        done = await w.done(begun)
        assert (done.phase, done.failure.reason) == (operations.PHASE_FAILED, "UNKNOWN_VM")
        await until(lambda: nothing_left(a) and nothing_left(b) and not b.hypervisor.disks.files)


async def test_agents_and_vcenter_that_restart_leave_it_in_step() -> None:
    async with world(store=MemoryStore()) as w:
        a, b, begun = await in_step(w)
        mirror = a.hypervisor.mirrors[VM]
        for host in (a, b):
            await host.kill()
            host.boot(w.target)
            await w.attached(host)
        await w.stop_serving()
        await w.serve()
        for host in (a, b):
            await w.attached(host)
        a.hypervisor.write(VM, ROOT.path, "after all that")
        assert content(b) == "after all that"
        assert await phase(w, begun) == MIRRORING
        assert a.hypervisor.mirrors[VM] is mirror, "it was not begun anew"


async def test_one_whose_receiver_died_is_copied_anew() -> None:
    async with world() as w:
        a, b, begun = await in_step(w)
        before = a.hypervisor.mirrors[VM]
        b.hypervisor.stop_receiving(VM)
        await until(lambda: (m := a.hypervisor.mirrors.get(VM)) is not before and bool(m))
        await until(lambda: a.hypervisor.mirrors[VM].in_step)
        a.hypervisor.write(VM, ROOT.path, "again")
        assert content(b) == "again"
        await w.reached(begun, MIRRORING)


async def test_what_an_agent_was_not_told_to_end_it_ends_when_it_is_back() -> None:
    async with world() as w:
        a, b, begun = await in_step(w)
        await b.kill()
        request = operations.CancelOperationRequest(operation_id=begun.operation_id)
        await w.operations.Cancel(request, metadata=OPERATOR)
        assert (await w.done(begun)).phase == CANCELLED
        assert is_silent(w, b) and ROOT.path in b.hypervisor.disks.files
        b.boot(w.target)
        await until(lambda: nothing_left(a) and nothing_left(b))
        assert not b.hypervisor.disks.files and w.running_on() == [a.name]
