"""Questions to agents that are attached to another replica, and the others' to ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias
from uuid import uuid4

from common.codec.checker import Checker
from common.codec.enums import HOSTED_STATE
from common.model.operation import HostedState
from common.pb.vsignal.v1 import session_pb2
from common.pb.vsignal.v1.storage_pb2 import Letter
from vcenter.store.etcd import EtcdStore
from vcenter.store.etcd.client import Refused, Unreachable

ANSWER_WITHIN_S = 1.5  # less than who asks waits
MAX_ASKED = 256  # at a time, by others; what is more is not answered, which means unknown

Ask: TypeAlias = Callable[[str, str, float], Awaitable[HostedState]]


class Questions:
    """`passed_on` is told of letters that are no questions and no answers."""

    def __init__(self, store: EtcdStore, passed_on: Callable[[Letter], None]) -> None:
        self._store = store
        self._passed_on = passed_on
        self._ask: Ask | None = None
        self._open: dict[str, asyncio.Future[HostedState]] = {}
        self._answering = 0

    def answer_with(self, ask: Ask) -> None:
        self._ask = ask

    async def ask(self, holder: str, server_id: str, vm_id: str, within: float) -> HostedState:
        letter = Letter(
            ask_id=str(uuid4()), sender=self._store.name, server_id=server_id, vm_id=vm_id
        )
        future: asyncio.Future[HostedState] = asyncio.get_running_loop().create_future()
        self._open[letter.ask_id] = future
        try:
            with suppress(TimeoutError, Unreachable, Refused):
                async with asyncio.timeout(within):
                    await self._store.mail.send(holder, letter)
                    return await future
            return HostedState.UNKNOWN
        finally:
            del self._open[letter.ask_id]

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            async for letter in self._store.mail.letters():
                if letter.HasField("outcome"):
                    self._passed_on(letter)
                elif letter.state != session_pb2.HOSTED_STATE_UNSPECIFIED:
                    self._answered(letter)
                elif self._answering < MAX_ASKED:
                    self._answering += 1
                    tasks.create_task(self._answer(letter))

    def _answered(self, letter: Letter) -> None:
        future = self._open.get(letter.ask_id)
        if future is not None and not future.done():
            state = HOSTED_STATE.read(Checker(), "state", letter.state, HostedState.UNKNOWN)
            future.set_result(state)

    async def _answer(self, letter: Letter) -> None:
        try:
            if self._ask is not None:
                state = await self._ask(letter.server_id, letter.vm_id, ANSWER_WITHIN_S)
                to, letter.sender = letter.sender, self._store.name
                letter.state = HOSTED_STATE.to(state)
                with suppress(Unreachable, Refused):
                    await self._store.mail.send(to, letter)
        finally:
            self._answering -= 1
