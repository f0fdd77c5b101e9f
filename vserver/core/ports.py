"""The ports that a host should have, from what is wanted and which VMs are here.

No port means closed: a tap that nobody has named passes no frame (see network.port). So a VM that
is not wanted, an interface without a VNI, and a tap whose MAC nobody knows need nothing done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from common.model.operation import MoveKind, MoveStep
from common.model.vm import Interface, Vm, VmState
from common.model.wanted import PortState, WantedVm
from vserver.core.taps import incoming_device
from vserver.hypervisor.port import HostedVm
from vserver.network.port import Port

_NOT_HERE = (None, VmState.INCOMING, VmState.SHUT_OFF)


def desired_ports(
    wanted: Mapping[str, WantedVm], hosted: Mapping[str, HostedVm]
) -> dict[str, Port]:
    """By device."""
    ports = [port for vm_id, vm in wanted.items() for port in ports_of(vm, hosted.get(vm_id))]
    return {port.device: port for port in ports}


def ports_of(wanted: WantedVm, hosted: HostedVm | None) -> list[Port]:
    """The ports of one VM."""
    step = wanted.move.step if wanted.move is not None else None
    state = hosted.state if hosted is not None else None
    if step is MoveStep.PREPARE and state in _NOT_HERE:
        return [] if _is_standby(wanted) else incoming_ports(wanted, is_open=False)
    if step is MoveStep.CLEAN and state in _NOT_HERE:
        return []
    is_open = wanted.ports is PortState.OPEN
    if step is MoveStep.START and not has_taps(hosted) and not _is_off(wanted):
        return incoming_ports(wanted, is_open)
    return _tap_ports(wanted, hosted, is_open) if hosted is not None else []


def _is_off(wanted: WantedVm) -> bool:
    """No copy brings its taps: they come when it is started, named as the hypervisor likes."""
    return wanted.move is not None and wanted.move.kind.off


def _is_standby(wanted: WantedVm) -> bool:
    """Files, and nothing else, until it is promoted."""
    return wanted.move is not None and wanted.move.kind is MoveKind.STANDBY


def has_taps(hosted: HostedVm | None) -> bool:
    return hosted is not None and any(tap.device for tap in hosted.taps)


def incoming_ports(wanted: WantedVm, is_open: bool) -> list[Port]:
    """Ports of taps that a copy is about to make, under the names that were agreed on."""
    usable = _usable(wanted.vm)
    return [_port(wanted, incoming_device(mac), i, is_open) for mac, i in usable.items()]


def _tap_ports(wanted: WantedVm, hosted: HostedVm, is_open: bool) -> list[Port]:
    usable = _usable(wanted.vm)
    return [
        _port(wanted, tap.device, usable[tap.mac], is_open)
        for tap in hosted.taps
        if tap.device and tap.mac in usable
    ]


def _usable(vm: Vm) -> dict[str, Interface]:
    """Interfaces by MAC. Two with one MAC cannot be told apart by their taps: neither opens."""
    seen = Counter(interface.mac for interface in vm.interfaces)
    return {i.mac: i for i in vm.interfaces if i.vni and seen[i.mac] == 1}


def _port(wanted: WantedVm, device: str, interface: Interface, is_open: bool) -> Port:
    return Port(device, interface.mac, interface.ips, interface.vni, wanted.profile, is_open)
