"""Operations that have ended are kept for a configured time, then forgotten.

What somebody may still depend on stays, however old it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.model.operation import Operation
from common.model.place import is_abroad
from common.model.vm import VmState
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class ForgetOperations:
    """Of these, the ones that ended before `before_ms` and that nobody needs any more."""

    operation_ids: tuple[str, ...]
    before_ms: int

    def decide(self, view: View, now_ms: int) -> Decision:
        changes = []
        for operation_id in self.operation_ids:
            operation = view.operation(operation_id)
            if operation is not None and is_forgettable(view, operation, self.before_ms):
                changes.append(Change(keys.operation(operation_id), None))
        return Decision(tuple(changes), len(changes))


def is_forgettable(view: View, operation: Operation, before_ms: int) -> bool:
    if not operation.phase.final or operation.ended_ms >= before_ms:
        return False
    if _is_open(view, operation) or _is_between_domains(operation):
        return False
    parent = view.operation(operation.parent) if operation.parent else None
    return parent is None or is_forgettable(view, parent, before_ms)


def _is_open(view: View, operation: Operation) -> bool:
    """The VM is still this move's, or was lost: then it says which hosts could run the VM."""
    record = view.vm(operation.vm_id) if operation.vm_id else None
    if record is None:
        return False
    is_lost = record.location.state is VmState.LOST_NEEDS_FENCE
    return is_lost or record.operation_id == operation.operation_id


def _is_between_domains(operation: Operation) -> bool:
    """The other vCenter may not know yet how it ended, and asks again until it does. Of one that
    came from there we never learn that it knows; and asked for again, it would begin again."""
    return is_abroad(operation.source) or indexes.CARRIED in indexes.tags(operation)
