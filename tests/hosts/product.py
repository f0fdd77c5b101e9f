"""The product on a lab: a vCenter, an agent on every host, and an operator who looks at it all.

Every wait is for a condition and says, when it gives up, what was seen instead.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import grpc

from common.pb.vsignal.v1 import (
    directory_pb2,
    inventory_pb2,
    operations_pb2,
    signaling_pb2,
    types_pb2,
)
from deploy.demo.control import Control, connected
from deploy.lab import Guest, GuestSpec, Host, Lab, Nic, Probe, shell
from deploy.lab.daemons import Daemon, agent, domain, socket_of, vcenter, wait_socket
from deploy.lab.qemu_guest import states

T = TypeVar("T")

TENANT, NETWORK, VNI = "acme", "blue", 1001
RIVAL, RIVAL_NETWORK, RIVAL_VNI = "globex", "red", 2001
RUNNING, PAUSED, SHUT_OFF = (
    types_pb2.VM_STATE_RUNNING,
    types_pb2.VM_STATE_PAUSED,
    types_pb2.VM_STATE_SHUT_OFF,
)
_CAPACITY = "capacity = {vcpus = 32}"  # all hosts share this machine's few
_VIRSH = {RUNNING: "running", PAUSED: "paused", SHUT_OFF: "shutoff"}


def address(number: int) -> str:
    """Where guest `number` of a test is."""
    return f"10.1.0.{number}"


def spec(name: str, number: int, **options: Any) -> GuestSpec:
    """A guest of tenant `acme` on its network; `tenant=""` makes one that nobody told us about."""
    nic = Nic(f"52:54:00:10:00:{number:02x}", VNI, f"{address(number)}/24", NETWORK)
    return GuestSpec(name, (nic,), **{"tenant": TENANT, **options})


MOVER = spec("mover", 11, group="web")  # the one that moves, where a file has one


class Product:
    """`settings` is appended to the agents' configuration, by the host's number. `encrypt`: memory
    travels by TLS."""

    def __init__(
        self, lab: Lab, settings: dict[int, str] | None = None, encrypt: bool = False
    ) -> None:
        self.lab = lab
        self.center = vcenter(lab)
        self._settings = settings or {}
        self.agents: dict[int, Daemon] = self._made(encrypt)
        self._stack = ExitStack()
        self.control: Control

    # ---- up and down ----

    def up(self, agents: Iterable[int] | None = None) -> None:
        """Start the vCenter and these hosts' agents (all of them), and declare tenants."""
        self.center.start()
        wait_socket(socket_of(self.lab))
        self.control = self._stack.enter_context(
            connected(f"unix:{socket_of(self.lab)}", domain(self.lab).operator)
        )
        self.until("the vCenter answers", self._answers)
        for tenant, network, vni in (
            (TENANT, NETWORK, VNI),
            (RIVAL, RIVAL_NETWORK, RIVAL_VNI),
        ):
            self.control.declare_tenant(tenant)
            self.control.declare_network(network, tenant, vni)
        numbers = list(self.agents if agents is None else agents)
        for number in numbers:
            self.agents[number].start()
        self.wait_attached(numbers)

    def restart_agents(self, encrypt: bool) -> None:
        """All of them, with this configuration."""
        before = self.attachments()
        for running in self.agents.values():
            running.stop()
        self.agents = self._made(encrypt)
        for fresh in self.agents.values():
            fresh.start()
        self.wait_attached_anew(before, self.agents)

    def _made(self, encrypt: bool) -> dict[int, Daemon]:
        def extra(number: int) -> str:
            return f"{_CAPACITY}\n{self._settings.get(number, '')}"

        hosts = self.lab.hosts
        return {host.number: agent(self.lab, host, extra(host.number), encrypt) for host in hosts}

    def down(self) -> None:
        self._stack.close()

    def logs(self) -> str:
        """The end of every daemon's log."""
        daemons = [self.center, *self.agents.values()]
        return "\n\n".join(f"{d.log}\n{d.tail(25)}" for d in daemons if d.log.exists())

    # ---- waiting ----

    def until(
        self,
        what: str,
        look: Callable[[], T],
        timeout: float = 30.0,
        seen: Callable[[], object] = lambda: "",
    ) -> T:
        """Look until it is true; then give up, saying what was there instead.

        A vCenter that does not answer, because a test has just ended it, is no answer yet.
        """
        deadline = time.monotonic() + timeout
        while True:
            with suppress(grpc.RpcError):
                if found := look():
                    return found
            if time.monotonic() > deadline:
                instead = seen()
                raise TimeoutError(f"not within {timeout:.0f} s: {what}; seen: {instead}")
            time.sleep(0.05)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The vCenter stands still: whoever asks it gets no answer, and no refusal either."""
        assert self.center.process is not None
        pid = self.center.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_attached(self, numbers: Iterable[int] | None = None) -> None:
        wanted = {f"h{number}" for number in (self.agents if numbers is None else numbers)}

        self.until(
            f"{sorted(wanted)} attached",
            lambda: wanted <= self.attachments().keys(),
            seen=self.attachments,
        )

    def attachments(self) -> dict[str, int]:
        """Who is attached, and, in nanoseconds, since when."""
        servers = [load.server for load in self.control.servers()]
        return {
            s.server_id: s.last_seen.ToNanoseconds()
            for s in servers
            if s.liveness == types_pb2.LIVENESS_ATTACHED
        }

    def wait_attached_anew(self, before: dict[str, int], numbers: Iterable[int]) -> None:
        """These have attached again since `before`."""

        def anew() -> bool:
            now = self.attachments()
            return all(now.get(f"h{n}", 0) > before.get(f"h{n}", 0) for n in numbers)

        self.until("attached anew", anew, seen=self.attachments)

    def wait_registered(
        self,
        guest: Guest | GuestSpec,
        on: int,
        state: int = RUNNING,
        timeout: float = 20.0,
    ) -> directory_pb2.GetVmResponse:
        """Owned by this host, in this state, and, if it runs, with its policy in force."""
        vm_id = guest.uuid if isinstance(guest, GuestSpec) else guest.spec.uuid

        def look() -> directory_pb2.GetVmResponse | None:
            vm = self.control.vm(vm_id)
            if vm is None or vm.record.location.server_id != f"h{on}":
                return None
            in_force = not vm.record.vm.tenant or in_force_on(vm)
            ready = state != RUNNING or in_force
            return vm if vm.record.location.state == state and ready else None

        name = types_pb2.VmState.Name(state)
        what = f"{vm_id} registered on h{on} as {name}, policy in force"
        found = self.until(what, look, timeout, seen=lambda: self.control.vm(vm_id))
        assert found is not None
        return found

    def wait_agreement(self, within: float = 10.0) -> None:
        """Ledger, hypervisors, ports and forwarding all say the same."""
        start = time.monotonic()
        self.until(
            "ledger and hosts agree", lambda: not self.differences(), within, self.differences
        )
        print(f"ledger and hosts agree after {time.monotonic() - start:.1f} s")

    # ---- what there is ----

    def record(self, guest: Guest) -> types_pb2.VmRecord:
        found = self.control.vm(guest.spec.uuid)
        assert found is not None, f"{guest.name} is not registered"
        return found.record

    def records(self, **narrowed: Any) -> dict[str, types_pb2.VmRecord]:
        request = directory_pb2.ListVmsRequest(page_size=1000, **narrowed)
        found = self.control.directory.ListVms(request, timeout=10)
        return {record.vm.vm_id: record for record in found.records}

    def alerts(self, guest: Guest) -> list[types_pb2.Alert]:
        request = directory_pb2.ListAlertsRequest(vm_id=guest.spec.uuid)
        found = self.control.directory.ListAlerts(request, timeout=10)
        return list(found.alerts)

    def differences(self) -> list[str]:
        """Where ledger and hosts disagree; empty is what everybody wants."""
        ledger = {
            vm_id: (r.location.server_id, r.location.state) for vm_id, r in self.records().items()
        }
        hosted = self._hosted()
        found = [
            f"{vm_id}: ledger {ledger.get(vm_id)}, hosts {hosted.get(vm_id)}"
            for vm_id in ledger.keys() | hosted.keys()
            if ledger.get(vm_id) != hosted.get(vm_id)
        ]
        return found + self._without_policy(ledger) + self._astray()

    def _hosted(self) -> dict[str, tuple[str, int]]:
        """The hypervisors' word; a definition that is off counts only where nobody runs it."""
        found = {}
        for state in (SHUT_OFF, PAUSED, RUNNING):
            for host in self.lab.hosts:
                listed = _listed(host, _VIRSH[state])
                found |= dict.fromkeys(listed, (f"h{host.number}", state))
        return found

    def _without_policy(self, ledger: Iterable[str]) -> list[str]:
        vms = [(vm_id, self.control.vm(vm_id)) for vm_id in ledger]
        return [
            f"{vm_id}: wanted {vm.record.profile_hash}, in force {vm.status.applied_hash!r}"
            for vm_id, vm in vms
            if vm and vm.record.vm.tenant and vm.record.location.state == RUNNING
            if not in_force_on(vm)
        ]

    def _astray(self) -> list[str]:
        """Forwarding entries that point elsewhere than the ledger does."""
        places = {
            interface.mac: record.location.server_id
            for record in self.records(network=NETWORK).values()
            for interface in record.vm.interfaces
        }
        found = []
        for host in self.lab.hosts:
            here = f"h{host.number}"
            if here not in places.values():
                continue
            wanted = {mac: self._vtep(at) for mac, at in places.items() if at != here}
            if (entries := forwarding(host)) != wanted:
                found.append(f"h{host.number} forwards {entries}, not {wanted}")
        return found

    def _vtep(self, server_id: str) -> str:
        return self.lab.host(int(server_id.removeprefix("h"))).address

    # ---- doing ----

    def start(self, *specs: tuple[GuestSpec, int]) -> list[Guest]:
        """Start guests as anyone would with virsh, all at once, and wait for them."""
        guests = [self.lab.guest(spec, on) for spec, on in specs]
        for guest in guests:
            guest.wait_ready()
            self.wait_registered(guest, guest.host.number)
        return guests

    def probe(self, number: int, on: int, name: str = "eye") -> Probe:
        """An endpoint of the network on a host, where a VM that is only defined stands for it."""
        anchor = self.lab.place(spec(f"at-{name}", number + 100), on)
        anchor.define()
        self.wait_registered(anchor, on, SHUT_OFF)
        self.until(f"a tunnel on h{on}", lambda: has_link(anchor.host, f"vx-{VNI}"))
        return self.lab.probe(name, on, f"br-{VNI}", f"{address(number)}/24")

    def put_group(self, name: str, profile: types_pb2.Profile) -> None:
        self.control.declare_group(TENANT, name, profile)

    def assign(self, guest: Guest, group: str = "") -> types_pb2.VmRecord:
        """The operator says to whom a VM belongs, on which network, with which address."""
        nic = guest.spec.nics[0]
        request = inventory_pb2.AssignVmRequest(
            vm_id=guest.spec.uuid,
            tenant=TENANT,
            group=group,
            interfaces=[
                inventory_pb2.AssignVmRequest.Attachment(
                    mac=nic.mac, network=NETWORK, ips=[nic.ip.partition("/")[0]]
                )
            ],
        )
        return self.control.inventory.AssignVm(request, timeout=10)

    def relocate(
        self, guest: Guest, to: int, kind: operations_pb2.MoveKind = operations_pb2.MOVE_KIND_LIVE
    ) -> str:
        """Start a move, and return while it is under way; the operation's id."""
        request = signaling_pb2.RelocateRequest(
            vm_id=guest.spec.uuid, destination=f"h{to}", kind=kind
        )
        reply = self.control.signaling.Relocate(request, timeout=10)
        return reply.operation.operation_id

    def wait_copying(self, operation_id: str) -> None:
        """Some memory has arrived, and some has not."""

        def copies() -> bool:
            seen = self.operation(operation_id)
            return seen.phase == operations_pb2.PHASE_COPYING and seen.progress.bytes_processed > 0

        self.until("memory is copied", copies, seen=lambda: self.operation(operation_id))

    def wait_switching(self, operation_id: str) -> None:
        """Told at once, for it will not last; a move that has ended by then is told as well."""
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        for seen in self.control.operations.Follow(request, timeout=60):
            if seen.phase >= operations_pb2.PHASE_SWITCHING:
                return

    def wait_done(self, operation_id: str, timeout: float = 60.0) -> operations_pb2.Operation:
        self.until(
            "the move has ended",
            lambda: self.operation(operation_id).done,
            timeout,
            seen=lambda: self.operation(operation_id),
        )
        return self.operation(operation_id)

    def operation(self, operation_id: str) -> operations_pb2.Operation:
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        return self.control.operations.Get(request, timeout=10)

    def cancel(self, operation_id: str) -> operations_pb2.Operation:
        request = operations_pb2.CancelOperationRequest(operation_id=operation_id)
        return self.control.operations.Cancel(request, timeout=10)

    def _answers(self) -> bool:
        try:
            self.control.servers()
        except grpc.RpcError:
            return False
        return True


def _listed(host: Host, state: str) -> list[str]:
    """The ids of the host's VMs in this state (virsh's name of it)."""
    if host.hypervisor == "qemu":
        seen = states(host).items()
        return [vm_id for vm_id, its in seen if its.replace("-", "") == state]
    return host.virsh("list", "--uuid", f"--state-{state}", check=False).split()


def in_force_on(vm: directory_pb2.GetVmResponse) -> bool:
    """Whether the owner has read the VM's own profile back from its data plane."""
    return bool(vm.record.profile_hash) and vm.status.applied_hash == vm.record.profile_hash


def has_link(host: Host, name: str) -> bool:
    return shell.succeeds(["ip", "link", "show", name], netns=host.netns)


def forwarding(host: Host) -> dict[str, str]:
    """The tunnel's entries on a host: MAC to remote end."""
    lines = host.run(["bridge", "fdb", "show", "dev", f"vx-{VNI}"], check=False)
    found = re.findall(r"^(\S+) dst (\S+)", lines, re.M)
    return {mac: remote for mac, remote in found if mac != "00:00:00:00:00:00"}


def nft(host: Host) -> str:
    """All rules of a host's bridge family, as nft prints them."""
    return host.run(["nft", "list", "ruleset", "bridge"])
