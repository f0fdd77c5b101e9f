"""Values that the agent's tests share."""

from __future__ import annotations

from common.model.operation import MoveStep
from common.model.profile import Profile, Rate
from common.model.vm import Interface, Vm, VmState
from common.model.wanted import MoveOrder, PortState, WantedVm
from vserver.hypervisor.port import HostedVm, Tap
from vserver.network.port import Port

VM, OTHER = "6e7c5a52-0000-4000-8000-000000000001", "6e7c5a52-0000-4000-8000-000000000002"
MAC, MAC_2 = "52:54:00:00:00:01", "52:54:00:00:00:02"
MOVE = "0b0e0b0e-0000-4000-8000-000000000001"
PLAIN = Profile()
RATED = Profile(egress_rate=Rate(8_000_000))
NIC = Interface(MAC, ("10.1.0.1",), "blue", 1001)


def vm(vm_id: str = VM, *nics: Interface, name: str = "one") -> Vm:
    return Vm(vm_id, name, "acme", "", nics or (NIC,))


def order(step: MoveStep, epoch: int = 1, operation_id: str = MOVE) -> MoveOrder:
    return MoveOrder(operation_id, step, "host-2", "192.0.2.2", "memory://host-2", epoch)


def wanted(
    vm_id: str = VM,
    *,
    epoch: int = 1,
    owned: bool = True,
    ports: PortState = PortState.OPEN,
    step: MoveStep | None = None,
    profile: Profile = PLAIN,
    nics: tuple[Interface, ...] = (NIC,),
) -> WantedVm:
    move = order(step, epoch) if step is not None else None
    return WantedVm(vm(vm_id, *nics), epoch, owned, profile, profile.digest(), ports, "", move)


def hosted(
    vm_id: str = VM,
    state: VmState = VmState.RUNNING,
    device: str = "vnet0",
    mac: str = MAC,
    name: str = "one",
) -> HostedVm:
    plain = Vm(vm_id, name, interfaces=(Interface(mac),))
    return HostedVm(plain, state, (Tap(mac, "br0", device),))


def port(
    device: str = "vnet0", *, is_open: bool = True, profile: Profile = PLAIN, vni: int = 1001
) -> Port:
    return Port(device, MAC, ("10.1.0.1",), vni, profile, is_open)
