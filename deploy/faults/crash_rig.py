"""Two real hosts, a vCenter, two agents and a guest that moves: what the crash matrix breaks.

What is true of the guest is asked from virsh, from the process table and from the guest's own
frames, never from our daemons.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import grpc

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2, types_pb2
from deploy.demo.control import Control, connected
from deploy.lab import Guest, GuestSpec, Host, Lab, Nic, Probe, netns
from deploy.lab.capture import Capture
from deploy.lab.daemons import Daemon, agent, domain, socket_of, vcenter, wait_socket

T = TypeVar("T")
TENANT, NETWORK, VNI = "acme", "blue", 1001
PROBE_AT = "10.1.0.250"
_BEATS = 1000  # payload sizes that the heartbeat goes through
_HEADERS = 14 + 20 + 8


class Gone(Exception):
    """What was waited for did not come."""


def until(what: str, look: Callable[[], T], timeout: float = 40.0) -> T:
    """A vCenter that does not answer, because it was just ended, is no answer yet."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(grpc.RpcError):
            if found := look():
                return found
        if time.monotonic() > deadline:
            raise Gone(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.05)


class Rig:
    def __init__(self, lab: Lab, control: Control, center: Daemon, agents: list[Daemon]) -> None:
        self.lab = lab
        self.control = control
        self.center = center
        self.agents = agents
        self._made = 0
        self._probe: Probe | None = None

    # ---- guests ----

    def fresh_guest(self) -> Guest:
        """On the first host, with an address that no guest had before it; its heart beats."""
        self._made += 1
        nic = Nic(f"52:54:00:20:00:{self._made:02x}", VNI, f"10.1.0.{self._made}/24", NETWORK)
        guest = self.lab.guest(GuestSpec(f"m{self._made}", (nic,), tenant=TENANT), on=1)
        guest.wait_ready()
        until("the guest is registered", lambda: self.owner(guest) == ("h1", RUNNING))
        if self._probe is None:
            self._probe = self._watcher()
        size = f"$((i = (i + 1) % {_BEATS}))"
        beat = f"ping -q -c 1 -W 1 -s {size} {PROBE_AT} >/dev/null 2>&1; usleep 50000"
        guest.console(f"(i=0; while :; do {beat}; done) >/dev/null 2>&1 &")
        return guest

    def _watcher(self) -> Probe:
        """Behind the second host, where a VM that is only defined stands for the network."""
        nic = Nic("52:54:00:20:01:01", VNI, "10.1.0.251/24", NETWORK)
        anchor = self.lab.place(GuestSpec("anchor", (nic,), tenant=TENANT), 2)
        anchor.define()
        until("the bridge on h2", lambda: f"br-{VNI}" in anchor.host.run(["ip", "-br", "link"]))
        return self.lab.probe("eye", 2, f"br-{VNI}", f"{PROBE_AT}/24")

    @contextmanager
    def heartbeats(self, guest: Guest) -> Iterator[Callable[[], list[int]]]:
        """The beats that reach the network while the block lasts, in order."""
        assert self._probe is not None, "a guest has been made"
        mac = guest.spec.nics[0].mac
        with Capture(self._probe.netns, "eth0") as seen:

            def beats() -> list[int]:
                mine = (f for f in seen.frames if f.source_mac == mac and not f.is_arp)
                return [len(f.raw) - _HEADERS for f in mine if f.source_ip]

            yield beats

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

    def in_state(self, guest: Guest, state: str) -> list[str]:
        """The hosts whose hypervisor has it so."""
        return [
            f"h{host.number}"
            for host in self.lab.hosts
            if guest.spec.uuid in host.virsh("list", "--uuid", f"--state-{state}").split()
        ]

    def processes(self, guest: Guest) -> int:
        """Processes that are the guest, on both hosts."""
        mine = guest.spec.uuid.encode()
        return sum(mine in _words(pid) for host in self.lab.hosts for pid in netns.pids(host.netns))

    def owner(self, guest: Guest) -> tuple[str, int]:
        """The ledger's word."""
        vm = self.control.vm(guest.spec.uuid)
        location = vm.record.location if vm is not None else types_pb2.Location()
        return location.server_id, location.state

    # ---- moves ----

    def relocate(self, guest: Guest, to: Host) -> str:
        """As soon as both agents, which may just have been ended, are attached again."""
        until("both hosts are attached", self._attached)
        request = signaling_pb2.RelocateRequest(vm_id=guest.spec.uuid, destination=f"h{to.number}")
        reply = self.control.signaling.Relocate(request, timeout=10)
        return reply.operation.operation_id

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


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


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
