"""What the vCenter wants of this host, as far as we have heard.

It outlives the stream: a host whose vCenter is away goes on with the last it was told. A new stream
either goes on from what this host says that it holds, or names everything again before its first
`Synced`; what it did not name is over by then.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.model.wanted import Held, NetworkChange, NetworkPart, WantedNetwork, WantedVm
from vserver.core.epochs import Epochs
from vserver.core.networks import Networks


class Wanted:
    """`vtep`: this host's own tunnel end; networks are told to all of their hosts alike."""

    def __init__(self, epochs: Epochs, vtep: str = "") -> None:
        self._epochs = epochs
        self.vms: dict[str, WantedVm] = {}
        self._networks = Networks(vtep)
        self.revision = 0  # of the last Synced
        self.complete = False  # a whole set has been heard since the agent started
        self.in_step = False  # ... and on the stream that is attached now
        self._named_vms: set[str] = set()
        self._named_networks: set[int] = set()

    @property
    def networks(self) -> Mapping[int, WantedNetwork]:
        return self._networks.wanted

    def held(self) -> Held:
        """For the vCenter to go on from."""
        vms = tuple((vm_id, vm.digest) for vm_id, vm in self.vms.items())
        return Held(vms, self._networks.held())

    def attach(self, resumes: bool) -> None:
        """A new stream begins: it goes on from what is `held`, or tells everything."""
        self.in_step = False
        self._networks.attach()
        self._named_vms = set(self.vms) if resumes else set()
        self._named_networks = set(self.networks) if resumes else set()

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

    def put_network(self, part: NetworkPart) -> bool:
        """False: what we have now is not what it says; the whole network must be asked for."""
        self._named_networks.add(part.network.vni)
        return self._networks.put(part)

    def change_network(self, change: NetworkChange) -> bool:
        """False: as above."""
        self._named_networks.add(change.vni)
        return self._networks.change(change)

    def drop_network(self, vni: int) -> None:
        self._networks.drop(vni)
        self._named_networks.discard(vni)

    def synced(self, revision: int) -> frozenset[str]:
        """Everything has been told. Returns the VMs that were not named again, now dropped."""
        forgotten: frozenset[str] = frozenset()
        if not self.in_step:
            forgotten = frozenset(self.vms) - self._named_vms
            self.vms = {k: v for k, v in self.vms.items() if k in self._named_vms}
            self._networks.keep(self._named_networks)
        self.revision = revision
        self.complete = self.in_step = True
        return forgotten

    def missing_networks(self, vm: WantedVm) -> frozenset[int]:
        """VNIs of the VM that the stream has not told us of, or not yet."""
        return vm.vm.vnis() - self.networks.keys()
