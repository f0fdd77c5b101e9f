"""5.1 for VMs that nobody has known, which is what a host or a group that comes up has by the
thousand: each becomes a row as it was said, without a record in between.

What is known in any way, or is not plainly right, `Register` decides.
"""

from __future__ import annotations

from typing import ClassVar

from common.errors import Refusal
from common.model.value import value
from common.model.vm import Location, VmState
from vcenter.core.command import Decision
from vcenter.core.configuration import refuse_if_not_enforceable, resolved
from vcenter.core.packed import Packed, claim_numbers
from vcenter.core.register import Evidence, Outcome, Register, Reply
from vcenter.core.table import NewVm
from vcenter.core.view import View


@value
class Enter:
    """`server_id` is the caller's, from its certificate. `epoch` 0: the caller knows of none."""

    called: ClassVar[str] = Register.__name__  # in the audit log

    server_id: str
    vm: Packed
    state: VmState
    epoch: int = 0

    def in_full(self) -> Register:
        """The same, for any VM."""
        return Register(self.server_id, self.vm.vm(), self.state, self.epoch)

    def knowing(self, evidence: Evidence) -> Register:
        return self.in_full().knowing(evidence)

    def decide(self, view: View, now_ms: int) -> Decision:
        vm = self.vm
        claims = claim_numbers(vm.kind, vm.addresses)
        if (
            self.state is VmState.INCOMING
            or not self._is_sound(view)
            or view.knows(vm.vm_id, claims)
        ):
            return self.in_full().decide(view, now_ms)
        epoch = self.epoch or 1
        entered = NewVm(vm, claims, Location(self.server_id, self.state, epoch), now_ms)
        return Decision((entered,), Reply(Outcome.CREATED, epoch))

    def _is_sound(self, view: View) -> bool:
        """Whether such a VM fits what is declared as it stands, and no address is in dispute:
        found out once for all of its kind."""
        shape = (self.server_id, self.vm.kind)
        sound = view.sound()
        if shape in sound:
            return True
        server, vm = view.server(self.server_id), self.vm.vm()
        if server is None or view.has_disputes():
            return False
        try:
            if resolved(view, vm) != vm:
                return False
            if vm.profile is not None:
                refuse_if_not_enforceable(view, vm, server)
        except Refusal:
            return False
        sound.add(shape)
        return True
