"""What this ledger still knows of VMs that another domain has now: where each went, and when."""

from __future__ import annotations

from common.codec.times import to_timestamp
from common.codec.vm import to_location
from common.model.caller import Caller
from common.model.place import bare, domain_of, is_abroad
from common.model.vm import VmKey, VmRecord
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core import indexes
from vcenter.core.table import Table
from vcenter.wire.sight import find_vm, sees_vm


def clear_abroad(table: Table, response: pb.LookupResponse) -> None:
    """A VM that is here for its move's sake is not ours to answer for with authority."""
    if not table.count(indexes.ABROAD):
        return
    for result in response.results:
        if is_abroad(result.location.server_id):
            authority = result.authority
            result.Clear()
            result.authority = authority


def by_its_own_name(result: pb.LookupResult) -> None:
    """A vServer of a third domain, as that domain calls it."""
    server_id = result.location.server_id
    if is_abroad(server_id):
        result.authority = domain_of(server_id)
        result.location.server_id = bare(server_id)


def forwarded(table: Table, key: VmKey, caller: Caller) -> pb.LookupResult | None:
    """Where it went from here: it may have gone further since."""
    record = _last(table, key, caller)
    if record is None or not is_abroad(record.location.server_id):
        return None
    vm, location = record.vm, record.location
    server = table.server(location.server_id)
    result = pb.LookupResult(
        found=True,
        vm_id=vm.vm_id,
        name=vm.name,
        tenant=vm.tenant,
        group=vm.group,
        location=to_location(location),
        server_name=server.name if server is not None else "",
        management_address=server.management_address if server is not None else "",
        vtep_address=server.vtep_address if server is not None else "",
        certainty=pb.CERTAINTY_STALE,
        stale_since=to_timestamp(record.changed_ms),
    )
    by_its_own_name(result)
    return result


def _last(table: Table, key: VmKey, caller: Caller) -> VmRecord | None:
    """Its record while it moves; then, by its id alone, what its tombstone keeps."""
    record = find_vm(table, caller, key)
    if record is not None or key.claim is not None:
        return record
    grave = table.tombstone(key.vm_id)
    return grave.last if grave is not None and sees_vm(caller, grave.last.vm) else None
