"""Defects put into the daemons on purpose: the simulation is worth what it catches of them.

Each replaces one piece of one module's source. A piece that is not there any more, or there twice,
is an error: then the mutant has to follow the code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """`module` is compiled with `new` in the place of `old`; `why` says what is broken by it."""

    name: str
    why: str
    module: str
    old: str
    new: str


class Outdated(Exception):
    """The piece of source is not there exactly once."""


def mutated(mutant: Mutant, source: str) -> str:
    count = source.count(mutant.old)
    if count != 1:
        text = f"{mutant.name}: {mutant.module} has {mutant.old!r} {count} times"
        raise Outdated(text)
    return source.replace(mutant.old, mutant.new)


MUTANTS = (
    Mutant(
        "acknowledge before fsync",
        "what was answered and shown can be lost",
        "vcenter.ledger.writer",
        "results = await append\n",
        "results = [group.after + 1 + n for n in range(len(batches))]\n",
    ),
    Mutant(
        "keep the epoch at the switch",
        "the old owner's word counts as much as the new one's",
        "vcenter.core.movement",
        "epoch = operation.epoch_before + 1",
        "epoch = operation.epoch_before",
    ),
    Mutant(
        "forget the epoch of the dead",
        "a VM that returns starts again at epoch 1",
        "vcenter.core.register",
        "epoch = max(self.epoch, grave.epoch + 1 if grave else 1)",
        "epoch = max(self.epoch, 1)",
    ),
    Mutant(
        "drop the owner and epoch check of Deregister",
        "a late word of the old owner forgets a VM that runs elsewhere",
        "vcenter.core.deregister",
        "self._check_owner(record)\n",
        "pass\n",
    ),
    Mutant(
        "deregister in the middle of a move",
        "the move's record is gone under it",
        "vcenter.core.deregister",
        "if record.operation_id:",
        "if False:",
    ),
    Mutant(
        "skip the source check at the switch",
        "the VM is given away while it runs",
        "vcenter.core.heard",
        "if outcome.step in (MoveStep.COPY, MoveStep.ABORT) and outcome.truth in _OVER:",
        "if outcome.step in (MoveStep.COPY, MoveStep.ABORT):",
    ),
    Mutant(
        "treat an unknown as an absence",
        "a hypervisor that is silent proves nothing",
        "vserver.guests",
        "return await self._hypervisor.hosted(vm_id)",
        "said = await self._hypervisor.hosted(vm_id)\n"
        "            return HostedState.ABSENT if said is HostedState.UNKNOWN else said",
    ),
    Mutant(
        "believe an arrival without asking",
        "the owner is changed while the VM runs at the old one",
        "vcenter.core.register",
        "return self._ask(origin, record)",
        "return self._arrive(view, server, record, origin,"
        " Evidence(held.epoch, HostedState.ABSENT, HostedState.RUNNING), now_ms)",
    ),
    Mutant(
        "open the port first",
        "frames pass before the VM is this host's",
        "vserver.moves.destination",
        "ports = incoming_ports(wanted, is_open=False)",
        "ports = incoming_ports(wanted, is_open=True)",
    ),
    Mutant(
        "resume what should be thrown away",
        "the copy runs beside the VM",
        "vserver.moves.steps",
        "await means.hypervisor.discard(job.vm_id)",
        "await means.hypervisor.resume(job.vm_id)",
    ),
    Mutant(
        "go back on the source's word alone",
        "a copy is left behind at the destination",
        "vcenter.core.heard",
        "return {operation.source, operation.destination} if was_copied else {operation.source}",
        "return {operation.source}",
    ),
    Mutant(
        "give a silent host's VMs away",
        "silence is taken for death",
        "vcenter.core.servers",
        "changes = self._silenced(view)\n",
        "changes = self._silenced(view)\n"
        "        from common.model.vm import VmRecord, Location\n"
        "        others = [s for s in view.all(Server, indexes.SERVERS)"
        " if s.server_id != self.server_id]\n"
        "        for record in view.all(VmRecord, indexes.owned_by(self.server_id)):\n"
        "            if others and not record.operation_id:\n"
        "                at = Location(others[0].server_id, record.location.state,"
        " record.location.epoch + 1)\n"
        "                changes.append(Change(keys.vm(record.vm.vm_id),"
        " replace(record, location=at)))\n",
    ),
    Mutant(
        "say an outcome only once",
        "an answer that the vCenter could not write down is lost",
        "vserver.moves.orders",
        "await self._say_again()",
        "pass",
    ),
    Mutant(
        "never deregister",
        "the ledger keeps VMs that are gone",
        "vserver.core.announce",
        "GONE_AFTER = 2.0",
        "GONE_AFTER = 1e9",
    ),
    Mutant(
        "tell no peer where a VM went",
        "frames go to where it was",
        "vcenter.core.roster",
        "if vtep and vtep != told[mac]]",
        "if False]",
    ),
    Mutant(
        "tell nobody of a group's new policy",
        "the old policy stays in force",
        "vcenter.core.wanted",
        "elif isinstance(side, Group):",
        "elif False:",
    ),
    Mutant(
        "leave ports behind",
        "rules of VMs that have left stay for ever",
        "vserver.core.diff",
        "*(RemovePort(device) for device in observed.ports if device not in ports),",
        "",
    ),
    Mutant(
        "keep the epoch of an arrival",
        "two owners have the same epoch",
        "vcenter.core.register",
        "epoch = max(self.epoch, record.location.epoch + 1)",
        "epoch = max(self.epoch, record.location.epoch)",
    ),
    Mutant(
        "let a VM speak as another",
        "addresses are not checked",
        "vserver.network.policy",
        "is_checked = direction is Direction.EGRESS and port.profile.spoofing_is_checked",
        "is_checked = False",
    ),
    Mutant(
        "let everything pass an open port",
        "rules are not looked at",
        "vserver.network.policy",
        "return permits(port.profile.acl or Acl(), direction, frame)",
        "return True",
    ),
    Mutant(
        "conclude nothing from a copy that failed",
        "the move stays where it is",
        "vcenter.core.heard",
        "return None if outcome.ok else Event.COPY_FAILED",
        "return None",
    ),
    Mutant(
        "never order the start",
        "a VM that was copied stands still",
        "vcenter.core.wanted",
        "    Phase.SWITCHING: MoveStep.START,\n",
        "",
    ),
    Mutant(
        "hide from watchers what is gone",
        "a data plane goes on forwarding to it",
        "vcenter.wire.watch",
        "return _gone(revision, before.vm.vm_id)",
        "return None",
    ),
)
