"""What the `memory` adaptor keeps of a VM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from common.model.vm import Vm, VmState
from vserver.hypervisor.metadata import Description
from vserver.hypervisor.port import HostedVm, Tap


@dataclass(slots=True)
class MemoryVm:
    """One VM on one host. `arrived`: its memory is here, and nobody has resumed it yet. `writes`:
    bytes of its memory that its guest writes in a second."""

    described: Description
    state: VmState
    arrived: bool = False
    writes: float = 0.0

    @property
    def vm(self) -> Vm:
        return self.described.vm

    @property
    def active(self) -> bool:
        return self.state is not VmState.SHUT_OFF

    def hosted(self) -> HostedVm:
        described = self.described
        taps = tuple(t if self.active else replace(t, device="") for t in described.taps)
        return HostedVm(described.vm, self.state, taps, described.problem, described.disks)

    def at_destination(self, devices: Mapping[str, str]) -> MemoryVm:
        """As it stands there while its memory arrives: its taps named as was asked."""
        taps = tuple(
            Tap(t.mac, t.bridge, devices.get(t.mac, t.device)) for t in self.described.taps
        )
        described = replace(self.described, taps=taps)
        return MemoryVm(described, VmState.INCOMING, writes=self.writes)
