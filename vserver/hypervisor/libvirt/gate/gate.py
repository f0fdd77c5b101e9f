"""Which guests may not run here now, and who waits for that to change.

libvirt moves a guest in five calls between two libvirtds, and decides alone when one side's CPUs
stop and the other's start. As its lock manager we are asked between the two. A *destination* is
held from before its QEMU exists until the ledger says that it starts. A *source* passes until its
CPUs have stopped for the switch; from then on it is held, so that a libvirtd that does not hear how
the move ended cannot let it run on beside its copy. What is held and not let go in `PATIENCE` is
denied: libvirt then ends the copy, or leaves the source paused, with its memory.

VMs that no move of ours concerns pass at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from common import log
from common.clock import Clock
from vserver.hypervisor.libvirt.notes import Role
from vserver.hypervisor.libvirt.waiting import first

PATIENCE = 10.0  # seconds, in which libvirt answers nothing else about the guest
_log = log.get(__name__)


class Notes(Protocol):
    """What outlives the agent, and of a destination its host's boot, too: each guest's part in a
    move, by vm_id. A copy that the host was prepared for may come after it."""

    async def read(self) -> dict[str, Role]: ...

    async def write(self, vm_id: str, role: Role) -> None: ...

    async def remove(self, vm_id: str) -> None: ...


@dataclass(slots=True)
class _Post:
    """One guest at the gate. `asked` counts libvirt's calls."""

    role: Role
    shut: bool
    asked: int = 0
    decided: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    def __init__(self, notes: Notes, clock: Clock) -> None:
        self._notes = notes
        self._clock = clock
        self._posts: dict[str, _Post] = {}

    async def load(self) -> None:
        """What an agent before us has noted: shut, until somebody has looked."""
        known = await self._notes.read()
        self._posts = {vm_id: _Post(role, shut=True) for vm_id, role in known.items()}

    async def arm(self, vm_id: str) -> None:
        """Its copy begins here. It passes, for it runs."""
        await self._notes.write(vm_id, Role.SOURCE)
        self._posts[vm_id] = _Post(Role.SOURCE, shut=False)

    async def expect(self, vm_id: str) -> None:
        """It arrives here, and is held."""
        before = self._posts.get(vm_id)
        if before is not None and before.role is Role.DESTINATION and before.shut:
            return
        await self._notes.write(vm_id, Role.DESTINATION)
        self._posts[vm_id] = _Post(Role.DESTINATION, shut=True)

    def shut(self, vm_id: str) -> bool:
        """Its CPUs have stopped for the switch. False: libvirt did not say so *here*, once; it has
        another lock manager, or somebody else stops and starts the guest, and nothing is held."""
        post = self._posts.get(vm_id)
        if post is None or post.role is not Role.SOURCE or post.asked != 1:
            return False
        post.shut = True
        return True

    def holds(self, vm_id: str) -> bool:
        """A source that stands still, and does not run before `let_run`."""
        post = self._posts.get(vm_id)
        return post is not None and post.role is Role.SOURCE and post.shut

    def expects(self, vm_id: str) -> bool:
        post = self._posts.get(vm_id)
        return post is not None and post.role is Role.DESTINATION and post.shut

    def sources(self) -> list[str]:
        return [vm_id for vm_id in self._posts if self.holds(vm_id)]

    def kept(self) -> list[str]:
        """On either side."""
        return [vm_id for vm_id, post in self._posts.items() if post.shut]

    def let_run(self, vm_id: str) -> None:
        """From now on it passes."""
        if post := self._posts.get(vm_id):
            post.shut = False
            post.decided.set()

    def deny(self, vm_id: str) -> None:
        """Whoever waits is told no, and so is whoever asks later."""
        if (post := self._posts.get(vm_id)) and post.shut:
            post.decided.set()

    async def forget(self, vm_id: str) -> None:
        """No move concerns it any more."""
        if post := self._posts.pop(vm_id, None):
            post.decided.set()
            await self._notes.remove(vm_id)

    async def asked(self, vm_id: str) -> str:
        """libvirt's question. "": go on."""
        post = self._posts.get(vm_id)
        if post is None:
            return ""
        post.asked += 1
        if post.shut and not post.decided.is_set():
            decision = asyncio.ensure_future(post.decided.wait())
            try:
                await first(self._clock, PATIENCE, (decision,))
            finally:
                decision.cancel()
        if not post.shut:
            return ""
        _log.warning("kept from running", vm_id=vm_id, part=post.role.value)
        return f"vsignal: the ledger has not given VM {vm_id} to this host"
