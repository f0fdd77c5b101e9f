"""The answer to Register: what the ledger has of the VM now, and the policy that is in force."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from common.codec.profile import to_profile
from common.codec.record_bytes import besides, field, record_bytes, record_of
from common.model.server import Group
from common.model.vm import Vm
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.enter import Enter
from vcenter.core.packed import Kind, Packed
from vcenter.core.register import Register, Reply
from vcenter.core.table import Table
from vcenter.wire.register import outcome_to

_RECORD, _PROFILE = b"\x12", b"\x1a"  # fields of RegisterResponse
_KEPT = 4096  # groups of which it is known what their profile comes to
Policy: TypeAlias = tuple[str, bytes]  # the effective profile's hash, and itself as a field


class Registered:
    """Put together from encoded pieces: the VM is nearly always as it was said just now, and the
    policy its group's alone."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._policies: dict[tuple[str, str], tuple[Group | None, Policy]] = {}

    def response(self, command: Register | Enter, reply: Reply) -> bytes:
        """A RegisterResponse, encoded."""
        said = self._as_said(command.vm) if isinstance(command, Enter) else None
        if said is None:
            said = self._in_full(command.vm.vm_id)
        return _outcome(outcome_to(reply)) + said + _came_from(reply)

    def _as_said(self, vm: Packed) -> bytes | None:
        """Record and policy, where the VM still is what was said of it: then so are its bytes."""
        held = self._table.vms.entry_as(vm)
        if held is None:
            return None
        digest, policy = self._policy(vm.kind)
        record = record_of(vm.encoded, held.location, held.changed_ms, held.revision)
        return field(_RECORD, record + besides(digest, held.operation_id)) + policy

    def _in_full(self, vm_id: str) -> bytes:
        record = self._table.vm(vm_id)
        if record is None:
            return b""
        digest, policy = self._policy(record.vm)
        return field(_RECORD, record_bytes(record, digest)) + policy

    def _policy(self, vm: Vm | Kind) -> Policy:
        if vm.profile is not None:
            return self._told(vm)
        group = self._table.group(vm.tenant, vm.group) if vm.group else None
        of_group, policy = self._policies.get((vm.tenant, vm.group), (None, None))
        if policy is None or of_group is not group:
            policy = self._told(vm)
            if len(self._policies) >= _KEPT:
                self._policies.clear()
            self._policies[vm.tenant, vm.group] = group, policy
        return policy

    def _told(self, vm: Vm | Kind) -> Policy:
        profile = self._table.profile_over(vm.tenant, vm.group, vm.profile)
        return profile.digest(), field(_PROFILE, to_profile(profile).SerializeToString())


@lru_cache
def _outcome(outcome: pb.RegisterOutcome.ValueType) -> bytes:
    return pb.RegisterResponse(outcome=outcome).SerializeToString()


def _came_from(reply: Reply) -> bytes:
    origin = reply.came_from
    if origin is None:
        return b""
    came_from = pb.Origin(
        server_id=origin.server_id,
        name=origin.name,
        management_address=origin.management_address,
        epoch=reply.came_from_epoch,
    )
    return pb.RegisterResponse(came_from=came_from).SerializeToString()
