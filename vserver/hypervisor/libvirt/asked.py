"""Copies that libvirt was asked for, until it has said how they ended.

An agent that is ended, or loses its connection, in between leaves libvirt to go on by itself: it
may still be connecting to the destination, or not have begun at all. Such a copy is noted before it
is asked for, and whoever stops it goes by libvirt's own jobs: one that leaves is waited for until
it is gone. Where none is seen, it is looked for several times. Each look waits its turn, like the
copy: libvirtd takes requests from the line in which they have come, and lets one job after the
other have a domain; so a copy that was asked for before has its turn before the last look has.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable
from pathlib import Path

from common.clock import Clock
from vserver.hypervisor.libvirt.changing import Leaving
from vserver.hypervisor.libvirt.notes import NoteFiles, Role

LOOKS, LOOK_EVERY = 5, 0.2
ENDS_WITHIN = 10.0  # seconds, of a copy that has been told to


class Asked:
    """`look(vm_id, tell)`: see `changing.stop_leaving`. `notes`: a directory."""

    def __init__(
        self, look: Callable[[str, bool], Awaitable[Leaving]], clock: Clock, notes: Path
    ) -> None:
        self._look = look
        self._clock = clock
        self._notes = NoteFiles(notes)
        self._unanswered: set[str] = set()

    async def load(self) -> None:
        """What agents before us have asked for since this host's boot."""
        self._unanswered = set(await self._notes.read())

    async def begins(self, vm_id: str) -> None:
        await self._notes.write(vm_id, Role.SOURCE)
        self._unanswered.add(vm_id)

    async def ended(self, vm_id: str, answer: Future[None]) -> None:
        """An answer that did not reach us is none: libvirt may go on."""
        if not isinstance(answer.exception(), TimeoutError):
            await self._forget(vm_id)

    async def stop(self, vm_id: str) -> None:
        """Return when no copy is under way, nor comes any more; TimeoutError: who knows."""
        looks = LOOKS if vm_id in self._unanswered else 1
        told, ends = False, self._clock.monotonic() + ENDS_WITHIN
        while looks:
            found = await self._look(vm_id, not told)
            if found is Leaving.GONE:
                break
            if found is Leaving.LEAVES:
                told, looks = True, 1  # this is what was asked for: nothing comes after it
            else:
                looks -= 1
            if looks and self._clock.monotonic() > ends:
                raise TimeoutError(f"libvirt is still busy with a copy of VM {vm_id}")
            if looks:
                await self._clock.sleep(LOOK_EVERY)
        await self._forget(vm_id)

    async def _forget(self, vm_id: str) -> None:
        if vm_id in self._unanswered:
            self._unanswered.discard(vm_id)
            await self._notes.remove(vm_id)
