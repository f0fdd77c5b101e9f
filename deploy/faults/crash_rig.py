"""Two real hosts, a vCenter, two agents and a guest that moves: what the crash matrix breaks.

What is true of the guest is asked from virsh, from the process table and from the guest's own
frames, never from our daemons.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import grpc

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2, types_pb2
from deploy.demo.control import Control, connected
from deploy.faults import heart
from deploy.faults.until import until
from deploy.faults.witness import Witness
from deploy.lab import Guest, GuestSpec, Host, Lab, Nic
from deploy.lab.daemons import Daemon, agent, domain, socket_of, vcenter, wait_socket

TENANT, NETWORK, VNI = "acme", "blue", 1001


class Rig(Witness):
    def __init__(self, lab: Lab, control: Control, center: Daemon, agents: list[Daemon]) -> None:
        super().__init__(lab)
        self.control = control
        self.center = center
        self.agents = agents
        self._made = 0

    # ---- guests ----

    def fresh_guest(self) -> Guest:
        """On the first host, with an address that no guest had before it; its heart beats."""
        self._made += 1
        nic = Nic(f"52:54:00:20:00:{self._made:02x}", VNI, f"10.1.0.{self._made}/24", NETWORK)
        guest = self.lab.guest(GuestSpec(f"m{self._made}", (nic,), tenant=TENANT), on=1)
        guest.wait_ready()
        until("the guest is registered", lambda: self.owner(guest) == ("h1", RUNNING))
        heart.begin(guest)
        return guest

    def wipe(self, guest: Guest) -> None:
        """No trace of it, in either hypervisor or in the ledger."""
        for host in self.lab.hosts:
            guest.on(host).destroy()
            guest.on(host).undefine()
        until("the ledger has forgotten it", lambda: self._forgotten(guest))

    def _forgotten(self, guest: Guest) -> bool:
        vm = self.control.vm(guest.spec.uuid)
        if vm is None:
            return True
        if vm.record.location.state == types_pb2.VM_STATE_LOST_NEEDS_FENCE:
            request = operations_pb2.SettleRequest(vm_id=guest.spec.uuid)
            self.control.operations.Settle(request, timeout=10)
        return False

    # ---- what is true ----

    def owner(self, guest: Guest) -> tuple[str, int]:
        """The ledger's word."""
        vm = self.control.vm(guest.spec.uuid)
        location = vm.record.location if vm is not None else types_pb2.Location()
        return location.server_id, location.state

    # ---- moves ----

    def relocate(self, guest: Guest, to: Host) -> str:
        """As soon as both agents, which may just have been ended, are attached again."""
        self.wait_attached()
        request = signaling_pb2.RelocateRequest(vm_id=guest.spec.uuid, destination=f"h{to.number}")
        reply = self.control.signaling.Relocate(request, timeout=10)
        return reply.operation.operation_id

    def wait_attached(self) -> None:
        until("both hosts are attached", self._attached)

    def _attached(self) -> bool:
        servers = self.control.servers()
        return len(servers) == 2 and all(
            load.server.liveness == types_pb2.LIVENESS_ATTACHED for load in servers
        )

    def follow(self, operation_id: str) -> Iterator[operations_pb2.Operation]:
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        yield from self.control.operations.Follow(request, timeout=60)

    def cancel(self, operation_id: str) -> None:
        request = operations_pb2.CancelOperationRequest(operation_id=operation_id)
        with suppress(grpc.RpcError):  # too late is an answer too
            self.control.operations.Cancel(request, timeout=10)

    def get(self, operation_id: str) -> operations_pb2.Operation:
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        return self.control.operations.Get(request, timeout=10)

    def logs(self) -> str:
        return "\n\n".join(f"{d.log}\n{d.tail(25)}" for d in (self.center, *self.agents))


RUNNING = types_pb2.VM_STATE_RUNNING


def kill_qemu(guest: Guest) -> bool:
    """Whether there was one on the guest's host."""
    try:
        os.kill(guest.pid, signal.SIGKILL)
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(hosts=2))
        center = vcenter(lab)
        center.start()
        wait_socket(socket_of(lab))
        control = stack.enter_context(connected(f"unix:{socket_of(lab)}", domain(lab).operator))
        agents = [agent(lab, host, "capacity = {vcpus = 32}") for host in lab.hosts]
        made = Rig(lab, control, center, agents)
        until("the vCenter answers", lambda: control.servers() or True)
        control.declare_tenant(TENANT)
        control.declare_network(NETWORK, TENANT, VNI)
        for daemon in agents:
            daemon.start()
        until("both agents are attached", lambda: len(control.servers()) == 2, 60)
        yield made
