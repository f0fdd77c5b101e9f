"""What one watcher asked to hear of, and how it is told."""

from __future__ import annotations

from common.codec.operation import to_operation
from common.codec.server import to_alert, to_server
from common.codec.vm import to_record
from common.model.caller import Caller
from common.model.operation import Operation
from common.model.place import is_abroad
from common.model.server import Alert, Server
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.core.keys import Ledgered
from vcenter.core.view import View
from vcenter.core.wanted import hosts_of
from vcenter.wire.sight import sees


class Scope:
    def __init__(self, table: View, request: pb.WatchRequest, caller: Caller) -> None:
        self._table = table
        self._caller = caller
        self._request = request
        self._scope = request.WhichOneof("scope")

    def event(self, revision: int, record: Ledgered) -> pb.WatchEvent:
        event = pb.WatchEvent(revision=revision)
        if isinstance(record, VmRecord):
            profile = self._table.profile_of(record.vm)
            event.vm.CopyFrom(to_record(record, profile.digest()))
        elif isinstance(record, Server):
            event.server.CopyFrom(to_server(record))
        elif isinstance(record, Operation):
            event.operation.CopyFrom(to_operation(record))
        elif isinstance(record, Alert):
            event.alert.CopyFrom(to_alert(record))
        return event

    def concerns(self, record: Ledgered) -> bool:
        """Whether the record is of a watched kind, inside the scope, and the caller's to see."""
        if not sees(self._table, self._caller, record):
            return False
        if isinstance(record, VmRecord):
            return self._scope is None or self._vm_in_scope(record)
        if isinstance(record, Server):
            own = not is_abroad(record.server_id)
            return own and (self._scope is None or self._request.server_id == record.server_id)
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
            return request.server_id in hosts_of(self._table, record)
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
