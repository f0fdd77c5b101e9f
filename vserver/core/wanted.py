"""What the vCenter wants of this host, as far as we have heard.

It outlives the stream: a host whose vCenter is away goes on with the last it was told. A new stream
names everything again before its first `Synced`; what it did not name is over by then.
"""

from __future__ import annotations

from common.model.wanted import WantedNetwork, WantedVm
from vserver.core.epochs import Epochs


class Wanted:
    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self.vms: dict[str, WantedVm] = {}
        self.networks: dict[int, WantedNetwork] = {}
        self.revision = 0  # of the last Synced
        self.complete = False  # a whole set has been heard since the agent started
        self.in_step = False  # ... and on the stream that is attached now
        self._named_vms: set[str] = set()
        self._named_networks: set[int] = set()

    def attach(self) -> None:
        """A new stream begins to tell everything."""
        self.in_step = False
        self._named_vms.clear()
        self._named_networks.clear()

    def detach(self) -> None:
        """The stream was cut: what is wanted stays wanted."""
        self.in_step = False

    def named(self, vm_id: str) -> None:
        """The stream spoke of this VM, in words that we could not take: keep what we have."""
        self._named_vms.add(vm_id)

    def put_vm(self, vm: WantedVm) -> bool:
        """False if it was refused, for its epoch is older than one we have seen."""
        vm_id = vm.vm.vm_id
        self.named(vm_id)
        if not self._epochs.admits(vm_id, vm.epoch):
            return False
        if vm.owned:
            self._epochs.hold(vm_id, vm.epoch)
        else:
            self._epochs.note(vm_id, vm.epoch)
        self.vms[vm_id] = vm
        return True

    def drop_vm(self, vm_id: str) -> None:
        self.vms.pop(vm_id, None)
        self._named_vms.discard(vm_id)

    def put_network(self, network: WantedNetwork) -> None:
        self._named_networks.add(network.vni)
        self.networks[network.vni] = network

    def drop_network(self, vni: int) -> None:
        self.networks.pop(vni, None)
        self._named_networks.discard(vni)

    def synced(self, revision: int) -> frozenset[str]:
        """Everything has been told. Returns the VMs that were not named again, now dropped."""
        forgotten: frozenset[str] = frozenset()
        if not self.in_step:
            forgotten = frozenset(self.vms) - self._named_vms
            self.vms = {k: v for k, v in self.vms.items() if k in self._named_vms}
            self.networks = {k: v for k, v in self.networks.items() if k in self._named_networks}
        self.revision = revision
        self.complete = self.in_step = True
        return forgotten

    def missing_networks(self, vm: WantedVm) -> frozenset[int]:
        """VNIs of the VM that the stream has not told us of, or not yet."""
        return vm.vm.vnis() - self.networks.keys()
