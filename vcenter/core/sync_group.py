"""5.3, VM Group Synchronization: a group's profile, and members that leave it (A15).

Members themselves are registered one by one, with `register.Register`, and made durable together
by the writer's group commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from common.errors import Reason, Refusal, Violation
from common.model.profile import Profile
from common.model.server import Group
from common.model.vm import VmRecord
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.configuration import refuse_if_not_enforceable
from vcenter.core.overlay import Overlay
from vcenter.core.table import Change
from vcenter.core.view import View
from vcenter.core.wanted import hosts_of


@dataclass(frozen=True, slots=True)
class PutGroup:
    """Create the group, or make it so. `keep_profile`: leave an existing one as it is;
    `anti_affinity` None leaves that.

    Refused as a whole if a member's host cannot enforce the result: policy is never ignored.
    """

    tenant: str
    name: str
    profile: Profile | None
    keep_profile: bool = False
    anti_affinity: bool | None = None

    def decide(self, view: View, now_ms: int) -> Decision:
        if view.tenant(self.tenant) is None:
            raise Refusal(
                Reason.UNKNOWN_TENANT,
                f"tenant {self.tenant!r} is not declared",
                violations=(Violation("group.tenant", "unknown tenant"),),
            )
        before = view.group(self.tenant, self.name)
        if before is not None and self.keep_profile:
            return Decision(reply=before)
        apart = self.anti_affinity
        if apart is None:
            apart = before is not None and before.anti_affinity
        group = Group(self.tenant, self.name, self.profile, apart)
        if before is not None and replace(before, revision=0) == group:
            return Decision(reply=before)
        change = Change(keys.group(self.tenant, self.name), group)
        self._check_hosts(view, change)
        return Decision((change,), group)

    def _check_hosts(self, view: View, change: Change) -> None:
        after = Overlay(view)
        after.add((change,))
        for member in members(after, self.tenant, self.name):
            for host in sorted(hosts_of(after, member)):
                refuse_if_not_enforceable(after, member.vm, after.must_server(host))


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """The VM stays registered, without the group's profile."""

    tenant: str
    group: str
    vm_id: str
    server_id: str

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        if self.server_id and record.location.server_id != self.server_id:
            raise Refusal(
                Reason.NOT_OWNER, f"VM {self.vm_id} belongs to {record.location.server_id}"
            )
        if (record.vm.tenant, record.vm.group) != (self.tenant, self.group):
            return Decision(reply=record)
        left = replace(record, vm=replace(record.vm, group=""), changed_ms=now_ms)
        return Decision((Change(keys.vm(self.vm_id), left),), left)


def members(view: View, tenant: str, name: str) -> Iterator[VmRecord]:
    """The group's VM records."""
    return view.all(VmRecord, indexes.in_group(tenant, name))
