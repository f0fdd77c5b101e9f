"""One attached agent: what it should hear next, and the questions put to it.

A session is a set of items to look at again, and what was said of each last: a digest of a VM's
wanted state, the revision up to which a network was told. Bounded by what the host has; a slow
agent hears the latest state, not every step. An agent that comes back names what it holds, and
hears what differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from common.ids import NewId
from common.model.operation import HostedState, MoveStep
from common.model.silence import Listen
from common.model.wanted import Held, WantedVm
from vcenter.agents.admission import Turn
from vcenter.agents.networks import Networks
from vcenter.core.table import Table
from vcenter.core.wanted import Item, items_of, wanted_digest, wanted_vm

_HELD = 0  # of an item that the host holds, but not as it should be


@dataclass(frozen=True, slots=True)
class Gone:
    """This host has nothing to do with the item any more."""

    item: Item


@dataclass(frozen=True, slots=True)
class Ask:
    ask_id: str
    vm_id: str


@dataclass(frozen=True, slots=True)
class Synced:
    revision: int


# Bytes: a message about a network, the same for all of its hosts.
Down: TypeAlias = WantedVm | bytes | Gone | Ask | Listen | Synced


class Session:
    """`turn` ends once the host has been told everything."""

    def __init__(
        self,
        server_id: str,
        table: Table,
        networks: Networks,
        held: Held,
        turn: Turn,
        new_id: NewId,
    ) -> None:
        self.server_id = server_id
        self._table = table
        self._networks = networks
        self._dirty = items_of(table, server_id)
        self._said: dict[Item, int] = dict(held.vms)
        for vni, digest in held.networks:
            known = vni in self._dirty
            self._said[vni] = networks.heard_by_digest(vni, digest) if known else _HELD
        self._dirty.update(self._said)
        self._asks: dict[str, tuple[Ask, asyncio.Future[HostedState]]] = {}
        self._unsent_asks: list[Ask] = []
        self._unsent_listens: dict[str, Listen] = {}  # by operation: the latest order
        self._wake = asyncio.Event()
        self._wake.set()
        self._turn = turn
        self._new_id = new_id
        self._synced = False
        self.closed = False

    def mark(self, item: Item) -> None:
        self._dirty.add(item)
        self._wake.set()

    def resync(self, vni: int) -> None:
        """The host could not take the last word on a network."""
        if vni in self._said:
            self._said[vni] = _HELD
            self.mark(vni)

    def close(self) -> None:
        """The stream ends; questions that are open stay unanswered: unknown, not no."""
        self.closed = True
        self._turn.end()
        self._wake.set()
        for _, future in self._asks.values():
            if not future.done():
                future.set_result(HostedState.UNKNOWN)

    async def outgoing(self) -> AsyncIterator[Down]:
        """What to send, for as long as the session lives."""
        while not self.closed:
            self._wake.clear()
            while self._unsent_asks:
                yield self._unsent_asks.pop(0)
            for message in self._news():
                yield message
            while self._unsent_listens:
                yield self._unsent_listens.pop(next(iter(self._unsent_listens)))
            self._turn.end()
            await self._wake.wait()

    def _news(self) -> list[Down]:
        """What differs from what was said. The switch first: its packets are waiting."""
        self._networks.settle()
        dirty, self._dirty = self._dirty, set()
        shared: list[Down] = []
        own: list[Down] = []
        for item in sorted(dirty, key=str):  # the same ledger says the same, in the same order
            if isinstance(item, int):
                self._network(item, shared, own)
            else:
                self._vm(item, own)
        if own or not self._synced:
            own.append(Synced(self._table.revision))
            self._synced = True
        starts = [message for message in own if _starts(message)]
        return [*starts, *shared, *(message for message in own if not _starts(message))]

    def _vm(self, vm_id: str, news: list[Down]) -> None:
        digest = wanted_digest(self._table, self.server_id, vm_id)
        if digest is not None and digest != self._said.get(vm_id):
            wanted = wanted_vm(self._table, self.server_id, vm_id)
            if wanted is not None:
                news.append(wanted)
                self._said[vm_id] = digest
        elif digest is None and self._said.pop(vm_id, None) is not None:
            news.append(Gone(vm_id))

    def _network(self, vni: int, shared: list[Down], news: list[Down]) -> None:
        told = self._networks.news(vni, self.server_id, self._said.get(vni))
        if told is not None:
            messages, self._said[vni] = told
            shared += messages
        elif self._said.pop(vni, None) is not None:
            news.append(Gone(vni))

    def listen(self, order: Listen) -> None:
        """To the guest of a move between others. Said once, and after everything else: nothing
        waits for what comes of it."""
        self._unsent_listens[order.operation_id] = order
        self._wake.set()

    async def ask(self, vm_id: str, timeout: float) -> HostedState:
        """The hypervisor's word on a VM; UNKNOWN when it does not come in time."""
        ask = Ask(self._new_id(), vm_id)
        future: asyncio.Future[HostedState] = asyncio.get_running_loop().create_future()
        self._asks[ask.ask_id] = (ask, future)
        self._unsent_asks.append(ask)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return HostedState.UNKNOWN
        finally:
            del self._asks[ask.ask_id]

    def answered(self, ask_id: str, vm_id: str, state: HostedState) -> None:
        ask, future = self._asks.get(ask_id, (None, None))
        if ask is not None and future is not None and ask.vm_id == vm_id and not future.done():
            future.set_result(state)


def _starts(message: Down) -> bool:
    order = message.move if isinstance(message, WantedVm) else None
    return order is not None and order.step is MoveStep.START
