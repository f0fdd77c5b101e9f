"""A `memory` host, and what people and fate do to it: virsh's part, and power cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from common.errors import Reason, Refusal
from common.model.disk import Disk
from common.model.vm import Vm, VmState
from vserver.hypervisor.changes import EVERYTHING, Changes
from vserver.hypervisor.memory_disks import MemoryDisks, MemoryMirror
from vserver.hypervisor.memory_vm import MemoryVm
from vserver.hypervisor.metadata import AttachmentRules, Description, read_domain
from vserver.hypervisor.port import Tap


class MemoryHost:
    """Its VMs outlive the adaptor's `close`, as on a real host. Each step by hand is immediate,
    and tells of itself as virsh's do.
    """

    def __init__(self, name: str, rules: AttachmentRules) -> None:
        self.name = name
        self.vms: dict[str, MemoryVm] = {}
        self.powered = True
        self.answering = True
        self.changes = Changes()
        self.disks = MemoryDisks()
        self.receiving: dict[str, int] = {}  # ports, by VM whose copies are taken here
        self.taken: dict[int, MemoryMirror] = {}  # by port
        self.copies_kept: set[str] = set()  # whose copies are kept, taken now or not
        self.mirrors: dict[str, MemoryMirror] = {}  # by VM, where it runs
        self.ports = count(10_809)
        self._rules = rules
        self._tap_numbers = count()
        self._copy_fault: tuple[str, float] | None = None
        self._start_fault = ""
        self.taking: dict[str, int] = {}  # ports, by VM that is off and whose disks are taken
        self.deaf: set[str] = set()  # VMs whose guests do not heed their power button

    def create(
        self,
        vm: Vm,
        bridges: Mapping[str, str] | str = "br0",
        *,
        started: bool = True,
        disks: tuple[Disk, ...] = (),
    ) -> None:
        """`virsh define`, then `start`. `bridges`: by MAC, or one for all interfaces."""
        by_mac = {i.mac: bridges for i in vm.interfaces} if isinstance(bridges, str) else bridges
        taps = tuple(Tap(i.mac, by_mac.get(i.mac, "")) for i in vm.interfaces)
        self._define(Description(vm, taps, disks=disks), started=started)

    def create_xml(self, xml: str, *, started: bool = True) -> str:
        """The same from a domain's XML, read as libvirt's adaptor reads it; returns the vm_id."""
        described = read_domain(xml, self._rules, active=False)
        self._define(described, started=started)
        return described.vm.vm_id

    def start(self, vm_id: str) -> None:
        """`virsh start`: taps get names of the host's choice."""
        self.mirrors.pop(vm_id, None)  # a mirror ends with the guest whose disks it was of
        taken = self._tap_numbers
        vm = self.vms[vm_id]
        taps = tuple(replace(t, device=f"vnet{next(taken)}") for t in vm.described.taps)
        vm.described = replace(vm.described, taps=taps)
        self._turn(vm_id, VmState.RUNNING)

    def stop(self, vm_id: str) -> None:
        """`virsh destroy`: off at once; what was never defined is gone."""
        vm = self.vms[vm_id]
        if vm.state is VmState.INCOMING:
            self.drop(vm_id)
        else:
            self._turn(vm_id, VmState.SHUT_OFF)

    def pause(self, vm_id: str) -> None:
        """`virsh suspend`."""
        self._turn(vm_id, VmState.PAUSED)

    def undefine(self, vm_id: str) -> None:
        """`virsh undefine` of a VM that is off."""
        if self.vms[vm_id].active:
            raise ValueError(f"VM {vm_id} runs; stop it first")
        self.drop(vm_id)

    def migrate_by_hand(self, vm_id: str, to: MemoryHost) -> None:
        """`virsh migrate --live --persistent --undefinesource`, past every control plane."""
        vm = self.vms[vm_id]
        to.vms[vm_id] = MemoryVm(vm.described, vm.state)
        self.drop(vm_id)
        to.start(vm_id)

    def write(self, vm_id: str, path: str, content: str) -> None:
        """Its guest writes, and goes on when all have it that should."""
        disk = self.disks.files[path]
        self.disks.files[path] = replace(disk, content=content)
        mirror = self.mirrors.get(vm_id)
        if mirror is not None and mirror.in_step and not mirror.broken:
            mirror.there.files[path] = self.disks.files[path]

    def stop_receiving(self, vm_id: str) -> bool:
        """Whether there was anything: the other end hears of it."""
        port = self.receiving.pop(vm_id, None)
        if port is None:
            return False
        if mirror := self.taken.pop(port, None):
            mirror.broken = True
        return True

    def fail_next_migration(self, words: str = "migration failed", after: float = 0.5) -> None:
        """The next copy from here ends with an error once this share of it is done."""
        self._copy_fault = (words, after)

    def take_copy_fault(self) -> tuple[str, float] | None:
        """The fault meant for the copy that begins now: words, and share of it done."""
        fault, self._copy_fault = self._copy_fault, None
        return fault

    def fail_next_start(self, words: str = "cannot access storage file") -> None:
        """The next `power_on` here is refused."""
        self._start_fault = words

    def take_start_fault(self) -> str:
        """The fault meant for the start that is asked for now; "" if none is."""
        fault, self._start_fault = self._start_fault, ""
        return fault

    def disconnect(self) -> None:
        """libvirtd stops; its VMs run on, and its copies end with nobody knowing how."""
        self.answering = False

    def reconnect(self) -> None:
        """libvirtd is back."""
        self.answering = True
        self.changes.add(EVERYTHING)

    def crash(self) -> None:
        """The host loses power: all that ran is off, what only arrived is gone."""
        self.powered = False
        for vm_id in list(self.receiving):
            self.stop_receiving(vm_id)
        self.taking.clear()
        self.mirrors.clear()
        self.vms = {i: v for i, v in self.vms.items() if v.state is not VmState.INCOMING}
        for vm in self.vms.values():
            vm.state = VmState.SHUT_OFF

    def boot(self) -> None:
        """Power is back; nothing starts by itself."""
        self.powered = True
        self.changes.add(EVERYTHING)

    def _define(self, described: Description, *, started: bool) -> None:
        vm_id = described.vm.vm_id
        if vm_id in self.vms:
            raise ValueError(f"VM {vm_id} is defined already")
        self.vms[vm_id] = MemoryVm(described, VmState.SHUT_OFF)
        self.changed(vm_id)
        if started:
            self.start(vm_id)

    def _turn(self, vm_id: str, state: VmState) -> None:
        self.vms[vm_id].state = state
        self.changed(vm_id)

    def drop(self, vm_id: str) -> None:
        """It is not here any more."""
        del self.vms[vm_id]
        self.changed(vm_id)

    def changed(self, vm_id: str) -> None:
        """An event, if there is a connection to carry it."""
        if self.reachable:
            self.changes.add(vm_id)

    @property
    def reachable(self) -> bool:
        """Power, and a libvirtd that answers."""
        return self.powered and self.answering


def refused(text: str) -> Refusal:
    """As libvirt's words reach the caller."""
    return Refusal(Reason.HYPERVISOR_FAILED, f"memory: {text}")
