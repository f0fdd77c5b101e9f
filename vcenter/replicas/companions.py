"""What a vCenter knows of others that serve the same ledger, as a port."""

from __future__ import annotations

import asyncio
from typing import Protocol

from common.model.operation import HostedState, MoveOutcome


class Companions(Protocol):
    @property
    def me(self) -> str:
        """This replica's name; "" where there is only one vCenter."""
        ...

    @property
    def others(self) -> frozenset[str]:
        """Who else is alive."""
        ...

    def is_mine(self, holder: str) -> bool:
        """Whether the leases of agents that are attached to `holder` ("": to nobody) are this
        replica's to end: its own are, and the oldest replica's are those of the dead."""
        ...

    async def ask(self, holder: str, server_id: str, vm_id: str, within: float) -> HostedState:
        """A question to an agent that is attached elsewhere; UNKNOWN when no answer comes."""
        ...

    def pass_on(self, server_id: str, outcome: MoveOutcome) -> None:
        """What a host of ours said of another domain's move is told to the others, of whom any may
        be asked. It may be lost: the host says it again."""
        ...

    async def begin(self) -> None:
        """Before anything is served."""
        ...

    async def run(self) -> None:
        """For ever. Raises `StoreUnusable` when this process must begin again."""
        ...


class Alone:
    """There are none."""

    me = ""
    others: frozenset[str] = frozenset()

    def is_mine(self, holder: str) -> bool:
        return True

    async def ask(self, holder: str, server_id: str, vm_id: str, within: float) -> HostedState:
        return HostedState.UNKNOWN

    def pass_on(self, server_id: str, outcome: MoveOutcome) -> None:
        return

    async def begin(self) -> None:
        return

    async def run(self) -> None:
        await asyncio.Event().wait()
