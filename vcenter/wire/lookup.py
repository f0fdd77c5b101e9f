"""5.4 on the wire: keys in, locations out, in order; one or thousands a call."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.vm import from_key, to_location
from common.errors import Reason, Refusal
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.lookup import Found, lookup
from vcenter.core.view import View

MAX_KEYS = 10_000


def answer(table: View, revision: int, domain: str, request: pb.LookupRequest) -> pb.LookupResponse:
    if len(request.keys) > MAX_KEYS:
        raise Refusal(Reason.TOO_LARGE, f"at most {MAX_KEYS} keys a call, not {len(request.keys)}")
    check = Checker()
    check.require(len(request.keys) > 0, "keys", "at least one")
    keys = []
    for index, key in enumerate(request.keys):
        with check.at(f"keys[{index}]"):
            keys.append(from_key(check, key))
    check.done()
    results = [_result(domain, lookup(table, key)) for key in keys]
    return pb.LookupResponse(results=results, revision=revision)


def _result(domain: str, found: Found | None) -> pb.LookupResult:
    if found is None:
        return pb.LookupResult(authority=domain, certainty=pb.CERTAINTY_AUTHORITATIVE)
    vm = found.record.vm
    return pb.LookupResult(
        found=True,
        vm_id=vm.vm_id,
        name=vm.name,
        tenant=vm.tenant,
        group=vm.group,
        location=to_location(found.record.location),
        server_name=found.server.name,
        management_address=found.server.management_address,
        vtep_address=found.server.vtep_address,
        profile_hash=found.profile_hash,
        authority=domain,
        certainty=pb.CERTAINTY_AUTHORITATIVE,
    )
