"""5.6, VM Replication (A18): a copy near the tenant, while the original runs.

A standby is a copy of its disks that is kept in step until it is promoted (`standby`).

To switch to the copy is a live move with everything that the VM has: memory and disks go to the
vServer nearest to the tenant, the original stops when the copy is whole, and what is seen from
outside is the switch. `movement` has the phases, and what becomes of each failure.
"""

from __future__ import annotations

from common.model.budget import Budget
from common.model.operation import MoveKind
from vcenter.core.planning import Asked
from vcenter.core.queue import Limits
from vcenter.core.relocate import Relocate

SWITCH, STANDBY = "replicate", "standby"


def replicate(
    operation_id: str,
    vm_id: str,
    near: str,
    requested_by: str,
    *,
    standby: bool,
    budget: Budget,
    limits: Limits,
) -> Relocate:
    """The command."""
    kind = MoveKind.STANDBY if standby else MoveKind.LIVE
    return Relocate(
        operation_id,
        vm_id,
        "",
        requested_by,
        near=near,
        limits=limits,
        asked=Asked(kind, copy_disks=True, budget=budget),
        name=STANDBY if standby else SWITCH,
    )
