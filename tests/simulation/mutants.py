"""Defects put into the daemons on purpose: the simulation is worth what it catches of them.

Each replaces one piece of one module's source. A piece that is not there any more, or there twice,
is an error: then the mutant has to follow the code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """`module` is compiled with `new` in the place of `old`; `why` says what is broken by it, and
    `world` in which stories."""

    name: str
    why: str
    module: str
    old: str
    new: str
    world: str = "one"


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
        "    Phase.SWITCHING: MoveStep.START,\n    Phase.RETURNING: MoveStep.CLEAN,\n",
        "    Phase.RETURNING: MoveStep.CLEAN,\n",
    ),
    Mutant(
        "hide from watchers what is gone",
        "a data plane goes on forwarding to it",
        "vcenter.wire.watch",
        "return _gone(revision, before.vm.vm_id)",
        "return None",
    ),
    Mutant(
        "promote without a fence",
        "a silent host's VM is started beside itself",
        "vcenter.core.standby",
        "if said is HostedState.UNKNOWN and not is_fenced(view, host):",
        "if False:",
    ),
    Mutant(
        "call a copy whole that is not",
        "a standby is promoted with half a disk",
        "vserver.moves.standby",
        "        if seen.in_step:\n            return seen\n",
        "        return seen\n",
    ),
    Mutant(
        "never say that a mirror has ended",
        "a standby is promoted that is out of step",
        "vcenter.core.standby",
        "    (MoveStep.MIRROR, False): Event.BROKEN,\n",
        "",
    ),
    Mutant(
        "keep a standby of a VM that is gone",
        "the ledger keeps VMs that are gone",
        "vserver.core.announce",
        "return known.move is not None and not known.move.apart",
        "return known.move is not None",
    ),
    Mutant(
        "sweep no leftovers of standbys",
        "disks are mirrored for nobody",
        "vserver.moves.leftovers",
        "for vm_id in sorted(await standbys.kept()):",
        "for vm_id in ():",
    ),
    Mutant(
        "remove the disk before the switch",
        "what is lost at the switch has no disk any more",
        "vserver.moves.source",
        "    return Found(policy, copied)\n",
        "    await means.hypervisor.drop_disks(job.vm_id, job.order.disks)\n"
        "    return Found(policy, copied)\n",
    ),
    Mutant(
        "give a VM that is off away before its disk is there",
        "its destination starts it from a copy that has not ended",
        "vserver.moves.cold",
        "luggage = Luggage(order.disks, order.port, reporter(means, order.operation_id))",
        "luggage = Luggage()",
    ),
    Mutant(
        "remove the disk of a VM that is off before the switch",
        "its source has no disk any more, and its destination has none yet",
        "vserver.moves.cold",
        "    if truth is HostedState.SHUT_OFF:\n",
        "    if truth is HostedState.SHUT_OFF:\n"
        "        await means.hypervisor.drop_disks(job.vm_id, job.order.disks)\n",
    ),
    Mutant(
        "let what arrives pass the gate",
        "libvirt starts a VM before the ledger gives it to the host",
        "vserver.hypervisor.libvirt.gate.gate",
        "self._posts[vm_id] = _Post(Role.DESTINATION, shut=True)",
        "self._posts[vm_id] = _Post(Role.DESTINATION, shut=False)",
        world="gated",
    ),
    Mutant(
        "open the gate after a restart",
        "what was held runs on beside its copy",
        "vserver.hypervisor.libvirt.gate.gate",
        "_Post(role, shut=True)",
        "_Post(role, shut=False)",
        world="gated",
    ),
    Mutant(
        "call lost what its source holds",
        "the destination lost it, and nobody takes it back",
        "vcenter.core.heard",
        "may_return = operation.held and operation.phase is Phase.SWITCHING",
        "may_return = False",
        world="gated",
    ),
    Mutant(
        "hold on for a move that is over",
        "a VM whose move was called off never starts at the host that was made ready for it",
        "vserver.moves.leftovers",
        "        await _quietly(self._give_up())\n",
        "",
        world="gated",
    ),
    Mutant(
        "give up what may still arrive",
        "libvirt starts a VM before the ledger gives it to the host",
        "vserver.moves.leftovers",
        "is_live = wanted.move is not None and wanted.move.kind is MoveKind.LIVE",
        "is_live = False",
        world="gated",
    ),
    Mutant(
        "keep the epoch at the handover",
        "in two domains it has an owner at the same epoch",
        "vcenter.core.handover",
        "VmState.INCOMING, theirs.epoch_after)",
        "VmState.INCOMING, record.location.epoch)",
        world="domains",
    ),
    Mutant(
        "hand over, and keep it",
        "two domains have the authority for one VM",
        "vcenter.core.movement",
        "location = Location(switched.destination, VmState.INCOMING, switched.epoch_after)",
        "to = switched.source if is_abroad(switched.destination) else switched.destination\n"
        "    location = Location(to, VmState.INCOMING, switched.epoch_after)",
        world="domains",
    ),
    Mutant(
        "pass off what was heard as one's own",
        "an answer that may be old is called authoritative",
        "vcenter.federation.followed",
        "certainty=signaling_pb2.CERTAINTY_CACHED",
        "certainty=signaling_pb2.CERTAINTY_AUTHORITATIVE",
        world="domains",
    ),
    Mutant(
        "carry nothing on after a restart",
        "a move between domains stays where it was",
        "vcenter.federation.carrying",
        "for move in list(self._ledger.table.all(Operation, indexes.CARRIED)):",
        "for move in ():",
        world="domains",
    ),
    Mutant(
        "tell of other domains once only",
        "hosts refuse a second change at the same revision, and frames go astray",
        "vserver.core.networks",
        "change.revision < told.revision",
        "change.revision <= told.revision",
        world="domains",
    ),
)
