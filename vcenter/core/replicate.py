"""5.6, VM Replication (A18): a copy near the tenant, while the original runs.

To switch to the copy is a live move with everything that the VM has: memory and disks go to the
vServer nearest to the tenant, the original stops when the copy is whole, and what is seen from
outside is the switch. `movement` has the phases, and what becomes of each failure.
"""

from __future__ import annotations

from common.errors import Reason, Refusal
from common.model.budget import Budget
from vcenter.core.planning import Asked
from vcenter.core.queue import Limits
from vcenter.core.relocate import Relocate

NAME = "replicate"


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
    """The command. Raises `Refusal(UNIMPLEMENTED)` for a standby."""
    if standby:
        text = "a standby is not built yet; replicate without it, or move the VM"
        raise Refusal(Reason.UNIMPLEMENTED, text)
    return Relocate(
        operation_id,
        vm_id,
        "",
        requested_by,
        near=near,
        limits=limits,
        asked=Asked(copy_disks=True, budget=budget),
        name=NAME,
    )
