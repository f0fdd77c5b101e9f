"""Two domains that are peers, each with a vCenter and a real host, and a long line between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2, types_pb2
from deploy.demo.control import Control, connected
from deploy.faults import heart
from deploy.faults.crash_rig import NETWORK, RUNNING, TENANT, VNI
from deploy.faults.until import until
from deploy.faults.witness import Witness
from deploy.lab import Guest, GuestSpec, Host, Lab, Nic, netns, underlay
from deploy.lab.daemons import PORT, Center, Daemon, agent, vcenter, wait_socket

DOMAINS = ("east", "west")  # of h1 and h2


class Rig(Witness):
    def __init__(self, lab: Lab, controls: dict[str, Control], daemons: list[Daemon]) -> None:
        super().__init__(lab)
        self._controls = controls
        self._daemons = daemons
        self._made = 0

    def domain_of(self, host: Host) -> str:
        return DOMAINS[host.number - 1]

    # ---- guests ----

    def fresh_guest(self) -> Guest:
        """In the east, with an address that no guest had before it; its heart beats."""
        self._made += 1
        nic = Nic(f"52:54:00:30:00:{self._made:02x}", VNI, f"10.1.0.{self._made}/24", NETWORK)
        guest = self.lab.guest(GuestSpec(f"c{self._made}", (nic,), tenant=TENANT), on=1)
        guest.wait_ready()
        until("the guest is registered", lambda: self.owners(guest) == [("east/h1", RUNNING)])
        heart.begin(guest)
        return guest

    def wipe(self, guest: Guest) -> None:
        """No trace of it, in either hypervisor or in the ledgers."""
        for host in self.lab.hosts:
            guest.on(host).destroy()
            guest.on(host).undefine()
        until("the ledgers have forgotten it", lambda: self._forgotten(guest))

    def _forgotten(self, guest: Guest) -> bool:
        lost = types_pb2.VM_STATE_LOST_NEEDS_FENCE
        for place, state in self.owners(guest):
            if state == lost:
                request = operations_pb2.SettleRequest(vm_id=guest.spec.uuid)
                self._controls[place.partition("/")[0]].operations.Settle(request, timeout=10)
        return not self.owners(guest)

    # ---- what is true ----

    def owners(self, guest: Guest) -> list[tuple[str, int]]:
        """DOMAIN/SERVER and state, by every ledger that says with authority that it has the VM."""
        found: list[tuple[str, int]] = []
        for control in self._controls.values():
            (result,) = control.lookup(types_pb2.VmKey(vm_id=guest.spec.uuid))
            if result.found and result.certainty == signaling_pb2.CERTAINTY_AUTHORITATIVE:
                place = f"{result.authority}/{result.location.server_id}"
                found.append((place, result.location.state))
        return found

    # ---- moves ----

    def relocate(self, guest: Guest, to: Host) -> str:
        """Asked for in the guest's own domain, as soon as the other one can be heard."""
        place = f"{self.domain_of(to)}/h{to.number}"
        request = signaling_pb2.RelocateRequest(vm_id=guest.spec.uuid, destination=place)
        control = self._controls[self.domain_of(guest.host)]

        def accepted() -> str:
            return control.signaling.Relocate(request, timeout=10).operation.operation_id

        return until("the move is accepted", accepted)

    def follow(self, operation_id: str, at: Host) -> Iterator[operations_pb2.Operation]:
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        yield from self._controls[self.domain_of(at)].operations.Follow(request, timeout=120)

    def get(self, operation_id: str, at: Host) -> operations_pb2.Operation:
        return self._controls[self.domain_of(at)].operation(operation_id)

    # ---- the line ----

    @contextmanager
    def blocked(self, ways: tuple[str, ...]) -> Iterator[None]:
        underlay.block(self.lab.names.underlay, ways)
        try:
            yield
        finally:
            underlay.unblock(self.lab.names.underlay)

    def logs(self) -> str:
        return "\n\n".join(f"{d.log}\n{d.tail(25)}" for d in self._daemons)


@contextmanager
def rig(gated: bool = True) -> Iterator[Rig]:
    """`gated`: libvirt asks the agents before a guest runs (docs/gate.md)."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(hosts=2, gated=gated))
        centers = [_center(lab, name, f"10.0.0.{101 + n}") for n, name in enumerate(DOMAINS)]
        underlay.split(lab.names.underlay, ["west", "h2"])
        daemons = [
            vcenter(lab, at=own, extra=_peer(own, other))
            for own, other in (centers, reversed(centers))
        ]
        agents = [agent(lab, h, at=c) for h, c in zip(lab.hosts, centers, strict=True)]
        daemons += agents
        for daemon in daemons:
            daemon.start()
        controls = {}
        for center in centers:
            wait_socket(center.socket)
            link = connected(f"unix:{center.socket}", center.domain.operator)
            controls[center.name] = stack.enter_context(link)
        made = Rig(lab, controls, daemons)
        for control in controls.values():
            until("the vCenter answers", lambda: control.servers() or True)  # noqa: B023
            control.declare_tenant(TENANT)
            control.declare_network(NETWORK, TENANT, VNI)
            until("its host is attached", lambda: len(control.servers()) == 1, 60)  # noqa: B023
        yield made


def _center(lab: Lab, name: str, address: str) -> Center:
    names = lab.names
    center = Center(name, names.vcenter_of(name), address, names.work / name)
    center.folder.mkdir()
    netns.create(center.netns)
    underlay.plug(names.underlay, center.netns, address)
    return center


def _peer(own: Center, other: Center) -> str:
    return f"""
[[domains]]
name = "{other.name}"
relation = "peer"
vouches = "admin"
address = "{other.address}:{PORT}"
{other.domain.table(f"domain/{own.name}")}
"""
