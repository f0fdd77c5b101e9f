"""What is true of the guests: taken from the machines, never from what our own code believes."""

from __future__ import annotations

from collections.abc import Callable

from common.model.place import bare
from common.model.vm import VmState
from deploy.simulation.journal import Journal, short
from deploy.simulation.machines import Machine
from deploy.simulation.writings import Writings

BY_HAND_S = 25.0  # what a host said of a VM may be so old when somebody touches the VM
_ABLE = (VmState.RUNNING, VmState.PAUSED)


class Truth:
    """All machines of the world, whichever vCenter their agents belong to."""

    def __init__(self, journal: Journal, now: Callable[[], float]) -> None:
        self._journal = journal
        self._now = now
        self.machines: dict[str, Machine] = {}
        self.writings = Writings(journal, now, self.machines)
        self.promoting: dict[str, float] = {}  # VMs whose standbys may be promoted until then
        self.touched: dict[str, float] = {}  # when somebody last did something to a VM by hand

    def guest(self, machine: Machine, vm_id: str) -> None:
        """I1: one host runs a VM, on its own disk. Called after all that happens to a guest."""
        able = [name for name, m in self.machines.items() if self._is_able(m, vm_id)]
        if len(able) > 1:
            self._journal.violated("I1", f"{short(vm_id)} can run on {' and '.join(able)}")
        vm = machine.vms.get(vm_id)
        if vm is not None and vm.state is VmState.RUNNING and vm.described.disks:
            self.writings.runs(machine, vm_id)

    def _is_able(self, machine: Machine, vm_id: str) -> bool:
        vm = machine.vms.get(vm_id)
        if vm is None or not machine.powered or vm.state not in _ABLE:
            return False
        return vm_id not in machine.at_gate

    def is_active(self, server_id: str, vm_id: str) -> bool:
        """Under any name of the host: each name is one machine's, in all domains."""
        machine = self.machines.get(bare(server_id))
        return machine is not None and (vm := machine.vms.get(vm_id)) is not None and vm.active

    def is_held(self, server_id: str, vm_id: str) -> bool:
        """It stands still there, and does not run without its host's agent."""
        machine = self.machines.get(bare(server_id))
        return machine is not None and vm_id in machine.at_gate

    def is_able(self, host: str, vm_id: str) -> bool:
        """It runs there, or would at a word."""
        return self._is_able(self.machines[host], vm_id)

    def by_hand(self, vm_id: str) -> bool:
        """Somebody has touched it lately."""
        return self._now() - self.touched.get(vm_id, -BY_HAND_S) < BY_HAND_S
