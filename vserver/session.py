"""The agent's one long stream: attached to some vCenter, for as long as the agent lives.

Losing it changes nothing on the host. What was wanted stays wanted; a new stream goes on from what
is held, and what came of standing orders is said again.
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
LATER = 0.25  # at most so much later than the vCenter said, as a part of it
LONGEST = 60.0  # seconds; longer than that nobody is believed

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
            told = 0.0  # seconds to wait, in the vCenter's own words
            try:
                await self._attached(link, hello)
            except* (LinkLost, Refusal, TimeoutError) as group:
                _log.warning("not attached", vcenter=link.name, error=_words(group))
                told = max(told, _told_to_wait(group))
            if _is_cancelled():
                raise asyncio.CancelledError
            await self._clock.sleep(self._pause(told))

    def _pause(self, told: float) -> float:
        """Never before the vCenter said, and never all at once."""
        if told:
            return told * self._chance.uniform(1.0, 1.0 + LATER)
        delay, self._delay = self._delay, min(self._delay * 2, LAST_DELAY)
        return delay * self._chance.uniform(0.5, 1.0)

    async def _attached(self, link: Link, hello: pb.Hello) -> None:
        async with link.attach(self._hearing.greet(hello)) as stream:
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
        self._hearing.attach(welcome)
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


def _is_cancelled() -> bool:
    """A TaskGroup (of Python 3.11, 3.12) whose task failed at the moment in which it was cancelled
    raises the failure alone."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _words(group: BaseExceptionGroup[Exception]) -> str:
    return "; ".join(str(error) or type(error).__name__ for error in group.exceptions)


def _told_to_wait(group: BaseExceptionGroup[Exception]) -> float:
    """`RetryInfo`, in seconds; 0: nothing was said."""
    times = [e.retry_after or 0.0 for e in group.exceptions if isinstance(e, Refusal)]
    return min(max(times, default=0.0), LONGEST)
