"""What each vServer has promised: to its VMs, and to those that are on their way to it."""

from __future__ import annotations

from common.model.operation import Operation
from common.model.server import Server
from common.model.vm import Resources, VmRecord
from vcenter.core import indexes
from vcenter.core.view import View


class Loads:
    """Counted once for each host that is asked about, and kept up to date by `promise`: a plan
    for a thousand VMs does not count them a thousand times. Good for one decision."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, Resources] = {}

    def of(self, server_id: str) -> Resources:
        known = self._known.get(server_id)
        if known is None:
            known = self._known[server_id] = committed(self._view, server_id)
        return known

    def besides(self, server_id: str, record: VmRecord) -> Resources:
        """Without what has been promised to this VM already."""
        promised = self.of(server_id)
        on_its_way = any(
            move.destination == server_id
            for move in self._view.all(Operation, indexes.moving(record.vm.vm_id))
        )
        if not on_its_way and record.location.server_id != server_id:
            return promised
        mine = record.vm.resources
        return Resources(promised.vcpus - mine.vcpus, promised.memory_mib - mine.memory_mib)

    def promise(self, server_id: str, resources: Resources) -> None:
        """One VM more, that the view does not show there yet."""
        before = self.of(server_id)
        self._known[server_id] = Resources(
            before.vcpus + resources.vcpus, before.memory_mib + resources.memory_mib
        )

    def share(self, server: Server) -> float:
        """Committed memory over capacity; 0 where the capacity is unknown."""
        capacity = server.capacity.memory_mib
        return self.of(server.server_id).memory_mib / capacity if capacity else 0.0


def committed(view: View, server_id: str) -> Resources:
    """Of its VMs, and of those that are on their way, queued ones included."""
    records = {r.vm.vm_id: r for r in view.all(VmRecord, indexes.owned_by(server_id))}
    for move in view.all(Operation, indexes.arriving_at(server_id)):
        record = view.vm(move.vm_id)
        if record is not None:
            records[move.vm_id] = record
    needs = [record.vm.resources for record in records.values()]
    return Resources(sum(n.vcpus for n in needs), sum(n.memory_mib for n in needs))
