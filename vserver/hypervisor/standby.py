"""What the agent needs of a hypervisor for standbys: disks that are mirrored while their VM runs.

Every write of the guest is over only when the copy has it, too, once the two are in step: so the
copy is what the guest knows to be written, at any moment at which the mirror, or its host, ends.
Failures are those of `port.Hypervisor`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.errors import Reason, Refusal
from common.model.disk import Disk


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Bytes, of all disks: what there is to write to the copies, and what has been written.
    `in_step`: the copies were whole once, and have been kept so since."""

    total: int
    done: int
    in_step: bool

    @property
    def missing(self) -> int:
        return max(self.total - self.done, 0)


class Standbys(Protocol):
    # ---- where the copy is ----

    async def receive(self, vm_id: str, disks: Sequence[Disk]) -> int:
        """Take copies of these disks; the port where. What was taken for this VM before is written
        over; a file of anybody else's is not, and that is refused. Goes on without the agent."""
        ...

    async def adopt(self, vm_id: str, definition: bytes, disks: Sequence[Disk]) -> None:
        """Nothing is taken any more; the VM is defined here, off, with its copied disks, which are
        its own from now on. Done already is no error, while it is defined here. Once it is not any
        more, or was never taken, this is refused (`not_kept`): it may have run, and left."""
        ...

    async def drop(self, vm_id: str) -> None:
        """Take nothing for it any more, and remove what was taken. Nothing there is no error; what
        was adopted is not touched."""
        ...

    # ---- where the VM runs ----

    async def mirror(self, vm_id: str, uri: str, port: int, disks: Sequence[Disk]) -> bytes:
        """Begin, anew if it was under way; the VM's definition, for `adopt`. It goes on without the
        agent. `uri`: the destination's, as for a move."""
        ...

    async def mirrored(self, vm_id: str) -> Mirrored | None:
        """How far it is; None while the VM is off. Refused when it has ended: then the copy is not
        kept in step any more, whatever it lacks."""
        ...

    async def unmirror(self, vm_id: str) -> None:
        """End it. The VM goes on with its own disks. Nothing under way is no error."""
        ...

    async def kept(self) -> Collection[str]:
        """The VMs of which this host takes disks, or mirrors them: what `drop` and `unmirror` end,
        also after any restart."""
        ...


def not_kept(vm_id: str) -> Refusal:
    text = f"no copy of VM {vm_id} is kept here: it was never taken, or was adopted and has left"
    return Refusal(Reason.NO_STANDBY, text)
