"""What the `memory` adaptor keeps of a VM, and how a copy of it goes on in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from common.clock import Clock
from common.model.operation import Progress
from common.model.vm import Vm, VmState
from vserver.hypervisor.metadata import Description
from vserver.hypervisor.port import Copied, HostedVm, Tap

_MIB = 1 << 20


@dataclass(slots=True)
class MemoryVm:
    """One VM on one host. `arrived`: its memory is here, and nobody has resumed it yet."""

    described: Description
    state: VmState
    arrived: bool = False

    @property
    def vm(self) -> Vm:
        return self.described.vm

    @property
    def active(self) -> bool:
        return self.state is not VmState.SHUT_OFF

    def hosted(self) -> HostedVm:
        described = self.described
        taps = tuple(t if self.active else replace(t, device="") for t in described.taps)
        return HostedVm(described.vm, self.state, taps, described.problem)

    def at_destination(self, devices: Mapping[str, str]) -> MemoryVm:
        """As it stands there while its memory arrives: its taps named as was asked."""
        taps = tuple(
            Tap(t.mac, t.bridge, devices.get(t.mac, t.device)) for t in self.described.taps
        )
        return MemoryVm(replace(self.described, taps=taps), VmState.INCOMING)


@dataclass(frozen=True, slots=True)
class CopySpeed:
    """How fast a fleet copies: in steps, then a switch during which the guest stands still."""

    bytes_per_second: float = 1e9
    steps: int = 10
    downtime: float = 0.02

    async def copy(
        self, clock: Clock, vm: Vm, progress: Callable[[Progress], None], check: Callable[[], None]
    ) -> int:
        """All memory once, `check` raising when it cannot go on; returns the bytes."""
        total = max(vm.resources.memory_mib, 1) * _MIB
        for step in range(1, self.steps + 1):
            await clock.sleep(total / self.bytes_per_second / self.steps)
            check()
            done = total * step // self.steps
            progress(Progress(total, done, total - done, self.bytes_per_second, 1))
        return total

    def copied(self, total: int) -> Copied:
        return Copied(total, self.downtime * 1000, 1)
