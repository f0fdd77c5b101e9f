"""The agent's one long stream: attached to some vCenter, for as long as the agent lives.

Losing it changes nothing on the host. What was wanted stays wanted; a new stream tells everything
again, and what came of standing orders is said again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence

from common import log
from common.clock import Clock
from common.codec.times import from_duration
from common.errors import Refusal
from common.model.operation import HostedState
from common.pb.vsignal.v1 import session_pb2 as pb
from vserver.hearing import Hearing
from vserver.link import Link, LinkLost, Stream
from vserver.outbox import Outbox

FIRST_DELAY = 0.2
LAST_DELAY = 5.0
WELCOME_WITHIN = 10.0
MAX_ASKS = 256  # at a time
DEFAULT_LEASE = 10.0

_log = log.get(__name__)


class Session:
    """Tries its links in turn. `truth` is the hypervisor's own word on a VM, for questions."""

    def __init__(
        self,
        links: Sequence[Link],
        hearing: Hearing,
        outbox: Outbox,
        truth: Callable[[str], Awaitable[HostedState]],
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._links = links
        self._hearing = hearing
        self._outbox = outbox
        self._truth = truth
        self._clock = clock
        self._chance = chance
        self._asking = 0
        self._delay = FIRST_DELAY
        self.link: Link | None = None  # while attached
        self.lease = DEFAULT_LEASE

    async def run(self, hello: pb.Hello) -> None:
        """Attach, and attach again, for ever."""
        for link in itertools.cycle(self._links):
            try:
                await self._attached(link, hello)
            except* (LinkLost, Refusal, TimeoutError) as group:
                _log.warning("not attached", vcenter=link.name, error=_words(group))
            await self._clock.sleep(self._delay * self._chance.uniform(0.5, 1.0))
            self._delay = min(self._delay * 2, LAST_DELAY)

    async def _attached(self, link: Link, hello: pb.Hello) -> None:
        async with link.attach(hello) as stream:
            async with asyncio.timeout(WELCOME_WITHIN):
                first = await stream.receive()
            if first.WhichOneof("message") != "welcome":
                raise LinkLost("the vCenter did not say welcome")
            self._begin(link, first.welcome)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._send(stream))
                    await self._receive(stream, tasks)
            finally:
                self.link = None
                self._hearing.detach()

    def _begin(self, link: Link, welcome: pb.Welcome) -> None:
        _log.info("attached", vcenter=link.name, domain=welcome.domain, revision=welcome.revision)
        self._delay = FIRST_DELAY
        self.lease = from_duration(welcome.lease) or DEFAULT_LEASE
        self._outbox.clear()
        self._hearing.attach()
        self.link = link

    async def _send(self, stream: Stream) -> None:
        while True:
            await stream.send(await self._outbox.next())

    async def _receive(self, stream: Stream, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await stream.receive()
            if message.WhichOneof("message") == "ask":
                self._ask(message.ask, tasks)
            else:
                self._hearing.hear(message)

    def _ask(self, ask: pb.Ask, tasks: asyncio.TaskGroup) -> None:
        """In a task of its own: a hypervisor that is slow must not hold up the orders."""
        if self._asking >= MAX_ASKS:
            _log.warning("too many questions at once", vm_id=ask.vm_id)
            return  # no answer means unknown; it is asked again
        self._asking += 1
        tasks.create_task(self._answer(ask))

    async def _answer(self, ask: pb.Ask) -> None:
        try:
            self._outbox.answer(ask.ask_id, ask.vm_id, await self._truth(ask.vm_id))
        finally:
            self._asking -= 1


def _words(group: BaseExceptionGroup[Exception]) -> str:
    return "; ".join(str(error) or type(error).__name__ for error in group.exceptions)
