"""The watch: a snapshot and then every change, or the changes after a revision; ordered, gap-free,
or told to resynchronize (I4). Watch first, catch up second, filter by revision."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from common.codec.operation import to_operation
from common.codec.server import to_alert, to_server
from common.codec.vm import to_record
from common.model.operation import Operation
from common.model.server import Alert, Server
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.core import indexes
from vcenter.core.keys import Ledgered
from vcenter.core.table import Applied
from vcenter.core.wanted import hosts_of
from vcenter.feed import Committed, Lagging
from vcenter.ledger import Ledger

_SNAPSHOT = (
    (Server, indexes.SERVERS),
    (VmRecord, indexes.VMS),
    (Operation, indexes.ACTIVE),
    (Alert, indexes.ALERTS),
)


async def serve(ledger: Ledger, request: pb.WatchRequest) -> AsyncIterator[pb.WatchEvent]:
    watcher = _Watcher(ledger, request)
    with ledger.feed.subscribe() as subscription:
        revision = ledger.table.revision
        missed: list[Committed] | None = []
        if request.from_revision:
            missed = ledger.feed.since(request.from_revision)
        if missed is None:
            text = f"changes after {request.from_revision} are not kept any more"
            yield pb.WatchEvent(revision=revision, resync=text)
            return
        events = watcher.changes(missed) if request.from_revision else watcher.snapshot(revision)
        for event in list(events):
            yield event
        yield pb.WatchEvent(revision=revision, bookmark=True)
        try:
            async for committed in subscription:
                for event in watcher.changes([committed]):
                    yield event
        except Lagging:
            text = "this reader was too slow"
            yield pb.WatchEvent(revision=ledger.table.revision, resync=text)


class _Watcher:
    def __init__(self, ledger: Ledger, request: pb.WatchRequest) -> None:
        self._ledger = ledger
        self._request = request
        self._scope = request.WhichOneof("scope")

    def snapshot(self, revision: int) -> Iterator[pb.WatchEvent]:
        for kind, tag in _SNAPSHOT:
            for record in self._ledger.table.all(kind, tag):
                if self._concerns(record):
                    event = self._event(revision, record)
                    event.snapshot = True
                    yield event

    def changes(self, batches: list[Committed]) -> Iterator[pb.WatchEvent]:
        for committed in batches:
            for change in committed.changes:
                event = self._change(committed.revision, change)
                if event is not None:
                    yield event

    def _change(self, revision: int, change: Applied) -> pb.WatchEvent | None:
        """A VM that leaves the scope is gone, as far as this watcher is concerned."""
        if change.after is not None and self._concerns(change.after):
            return self._event(revision, change.after)
        before = change.before
        if isinstance(before, VmRecord) and self._concerns(before):
            return pb.WatchEvent(revision=revision, vm_gone=before.vm.vm_id)
        return None

    def _event(self, revision: int, record: Ledgered) -> pb.WatchEvent:
        event = pb.WatchEvent(revision=revision)
        if isinstance(record, VmRecord):
            profile = self._ledger.table.profile_of(record.vm)
            event.vm.CopyFrom(to_record(record, profile.digest()))
        elif isinstance(record, Server):
            event.server.CopyFrom(to_server(record))
        elif isinstance(record, Operation):
            event.operation.CopyFrom(to_operation(record))
        elif isinstance(record, Alert):
            event.alert.CopyFrom(to_alert(record))
        return event

    def _concerns(self, record: Ledgered) -> bool:
        """Whether the record is of a watched kind and inside the scope."""
        if isinstance(record, VmRecord):
            return self._scope is None or self._vm_in_scope(record)
        if isinstance(record, Server):
            return self._scope is None or self._request.server_id == record.server_id
        if isinstance(record, Operation | Alert):
            return self._scope is None or self._about(record)
        return False

    def _vm_in_scope(self, record: VmRecord) -> bool:
        request, vm = self._request, record.vm
        if self._scope == "network":
            return request.network in {i.network for i in vm.interfaces}
        if self._scope == "tenant":
            return request.tenant == vm.tenant
        if self._scope == "server_id":
            return request.server_id in hosts_of(self._ledger.table, record)
        return request.vm_id == vm.vm_id

    def _about(self, record: Operation | Alert) -> bool:
        request = self._request
        if self._scope == "vm_id":
            return request.vm_id == record.vm_id
        if self._scope != "server_id":
            return False
        if isinstance(record, Operation):
            return request.server_id in (record.source, record.destination)
        return request.server_id == record.server_id
