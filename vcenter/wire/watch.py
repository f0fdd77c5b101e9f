"""The watch: a snapshot and then every change, or the changes after a revision; ordered, gap-free,
or told to resynchronize (I4).

A reader is at a position. What the feed remembers of what comes after it is read from there; what
it does not, from the store's log, for as long as that is kept: after a restart of the vCenter, or
when the reader is slow. Watch first, catch up second, filter by revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from common.model.caller import Caller, Role
from common.model.operation import Operation
from common.model.server import Alert, Server
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.core import indexes, keys
from vcenter.core.table import Applied
from vcenter.ledger.feed import Committed, Lagging, Subscription
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.past import Past
from vcenter.store.port import Compacted
from vcenter.wire.scope import Scope

BOOKMARK_S = 10.0
BOOKMARK_REVISIONS = (
    1_000  # at most so many are read again by a reader that was cut while catching up
)
_KNOWN = 20_000  # VMs that a reader who catches up remembers to be outside of its scope, or inside

_SNAPSHOT = (
    (Server, indexes.SERVERS),
    (VmRecord, indexes.VMS),
    (Operation, indexes.ACTIVE),
    (Alert, indexes.ALERTS),
)


async def serve(
    ledger: Ledger, request: pb.WatchRequest, caller: Caller, every: float = BOOKMARK_S
) -> AsyncIterator[pb.WatchEvent]:
    """`every`: seconds between bookmarks."""
    watcher = _Watcher(ledger, request, caller, every)
    try:
        async for event in watcher.events():
            yield event
    except Compacted:
        text = f"changes after {watcher.position} are not kept any more"
        yield pb.WatchEvent(revision=ledger.table.revision, resync=text)
    except _Retold as retold:
        text = "what you may learn has changed"
        yield pb.WatchEvent(revision=retold.revision, resync=text)


class _Retold(Exception):
    """From this revision on another rule says what the reader may learn."""

    def __init__(self, revision: int) -> None:
        super().__init__()
        self.revision = revision


class _Watcher:
    def __init__(
        self, ledger: Ledger, request: pb.WatchRequest, caller: Caller, every: float
    ) -> None:
        self._feed = ledger.feed
        self._table = ledger.table
        self._past: Past = ledger.past
        self._scope = Scope(ledger.table, request, caller)
        self._every = every
        self._telling = keys.telling(caller.name) if caller.role is Role.DOMAIN else ""
        self.position = request.from_revision  # everything up to here has been sent
        self._marked: int | None = None  # the last bookmark

    async def events(self) -> AsyncIterator[pb.WatchEvent]:
        if self.position > self._table.revision:
            raise Compacted(self._table.revision)  # of a history that is not this ledger's
        if not self.position:
            self.position = self._table.revision
            for event in list(self._snapshot()):
                yield event
            yield self._bookmark()  # the snapshot ends here, before any change
        while not self._feed.ended:
            if self._feed.since(self.position) is None:
                async for event in self._catch_up():
                    yield event
                continue
            with self._feed.subscribe() as subscription:
                try:
                    async for event in self._live(subscription):
                        yield event
                except Lagging:
                    continue  # what it missed is in the log

    async def _live(self, subscription: Subscription) -> AsyncIterator[pb.WatchEvent]:
        for committed in self._feed.since(self.position) or ():
            for event in self._changes(committed):
                yield event
        if self._marked != self.position:
            yield self._bookmark()
        now = asyncio.get_running_loop().time
        due = now() + self._every
        while not subscription.ended:
            committed_now = await subscription.next(max(due - now(), 0.0))
            if committed_now is not None and committed_now.revision > self.position:
                for event in self._changes(committed_now):
                    yield event
            if now() >= due:
                yield self._bookmark()
                due = now() + self._every

    async def _catch_up(self) -> AsyncIterator[pb.WatchEvent]:
        """From the log, up to what is visible now."""
        known: dict[str, bool] = {}
        marked = self.position
        async for entry in self._past.entries(self.position):
            for key, record in entry.changes:
                self._check(key, entry.revision)
                event = None
                if record is not None and self._scope.concerns(record):
                    event = self._scope.event(entry.revision, record)
                elif key.startswith("vm/") and await self._was_inside(known, key, entry.revision):
                    event = _gone(entry.revision, key.removeprefix("vm/"))
                known[key] = event is not None and event.HasField("vm")
                if event is not None:
                    yield event
            self.position = entry.revision
            if len(known) > _KNOWN:
                known.clear()
            if self.position >= marked + BOOKMARK_REVISIONS:
                marked = self.position
                yield self._bookmark()

    async def _was_inside(self, known: dict[str, bool], key: str, revision: int) -> bool:
        """Whether the reader takes the VM to be in its scope: then it must hear that it left."""
        if key in known:
            return known[key]
        before = await self._past.record(key, revision - 1)
        return before is not None and self._scope.concerns(before)

    def _check(self, key: str, revision: int) -> None:
        """Raises `_Retold`."""
        if key == self._telling:
            raise _Retold(revision)

    def _snapshot(self) -> Iterator[pb.WatchEvent]:
        for kind, tag in _SNAPSHOT:
            for record in self._table.all(kind, tag):
                if self._scope.concerns(record):
                    event = self._scope.event(self.position, record)
                    event.snapshot = True
                    yield event

    def _changes(self, committed: Committed) -> Iterator[pb.WatchEvent]:
        for change in committed.changes:
            self._check(change.key, committed.revision)
            event = self._change(committed.revision, change)
            if event is not None:
                yield event
        self.position = committed.revision

    def _change(self, revision: int, change: Applied) -> pb.WatchEvent | None:
        """A VM that leaves the scope is gone, as far as this watcher is concerned."""
        if change.after is not None and self._scope.concerns(change.after):
            return self._scope.event(revision, change.after)
        before = change.before
        if isinstance(before, VmRecord) and self._scope.concerns(before):
            return _gone(revision, before.vm.vm_id)
        return None

    def _bookmark(self) -> pb.WatchEvent:
        self._marked = self.position
        return pb.WatchEvent(revision=self.position, bookmark=True)


def _gone(revision: int, vm_id: str) -> pb.WatchEvent:
    return pb.WatchEvent(revision=revision, vm_gone=vm_id)
