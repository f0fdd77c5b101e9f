"""The invariants I1, I3, I7 and I8 of DESIGN over the pure core, whatever comes in any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from common.errors import Reason, Refusal
from common.model.identity import Claim
from common.model.operation import HostedState, MoveOutcome, MoveStep, Operation, Phase
from common.model.profile import Acl, Capability, Profile, Rate
from common.model.server import Liveness, Server, VirtualNetwork, VmStatus
from common.model.vm import Interface, Resources, Tombstone, Vm, VmRecord, VmState
from common.model.wanted import PortState
from tests.support.nouns import ip, mac, vm_id
from tests.support.world import HOSTS, VNIS, Guest, Ledger, World
from vcenter.core import indexes, keys
from vcenter.core.cancel import Cancel
from vcenter.core.command import Command
from vcenter.core.deregister import Deregister
from vcenter.core.fence import Fence, Settle, is_fenced, suspects
from vcenter.core.heard import Heard
from vcenter.core.inventory import AssignVm, PutNetwork, PutTenant, SetVmProfile
from vcenter.core.planning import Where
from vcenter.core.queue import GiveTurns, Limits
from vcenter.core.register import Confirm, Evidence, Outcome, Register, Reply
from vcenter.core.relocate import Relocate, RelocateAll
from vcenter.core.report import Report
from vcenter.core.servers import AttachServer, CordonServer, LapseServer
from vcenter.core.sync_group import LeaveGroup, PutGroup

ONE = Limits(1, 1, 1)
VMS = [vm_id(n) for n in (1, 2, 3)]
ALL = frozenset({Capability.ACL, Capability.RATE, Capability.ANTI_SPOOFING})
hosts, vms = st.sampled_from(HOSTS), st.sampled_from(VMS)
destinations = st.sampled_from([*HOSTS, ""])
rounds = st.lists(st.permutations(HOSTS), min_size=1, max_size=6).map(chain.from_iterable)
epochs = st.integers(0, 4)
profiles = st.sampled_from(
    [None, Profile(acl=Acl()), Profile(egress_rate=Rate(8_000)), Profile(anti_spoofing=False)]
)
states = st.sampled_from([VmState.RUNNING, VmState.PAUSED, VmState.SHUT_OFF])


def interface(number: int, shared: bool, network: str) -> Interface:
    """`shared`: an address that another VM may want too."""
    return Interface(mac(number), (ip(9 if shared else number),), network)


configurations = st.builds(
    lambda number, shared, network, tenant, group, profile: Vm(
        vm_id=vm_id(number),
        tenant=tenant,
        group=group if tenant else "",
        interfaces=(interface(number, shared, network if tenant else ""),),
        profile=profile,
        resources=Resources(1, 100),
    ),
    number=st.integers(1, 3),
    shared=st.booleans(),
    network=st.sampled_from(["lan", "lan", "dmz", ""]),
    tenant=st.sampled_from(["blue", "blue", "blue", ""]),
    group=st.sampled_from(["web", ""]),
    profile=profiles,
)


class Core(RuleBasedStateMachine):
    """Rules make messages, others deliver them: late, again, or never."""

    outcomes = Bundle("outcomes")
    commands = Bundle("commands")
    moves = Bundle("moves")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.world = World({vm: Guest() for vm in VMS})
        self.epochs: dict[str, tuple[int, str]] = {}
        self.proofs: set[tuple[str, int]] = set()  # (operation, epoch): the source said ABSENT
        self.serial = 0

    @property
    def table(self) -> Any:
        return self.ledger.table

    @initialize(places=st.lists(hosts, min_size=2, max_size=2))
    def declare(self, places: list[str]) -> None:
        self.ledger.commit(
            PutTenant("blue"),
            PutNetwork(VirtualNetwork("lan", "blue", (VNIS[0],))),
            PutNetwork(VirtualNetwork("dmz", "blue", (VNIS[1],))),
            PutGroup("blue", "web", Profile(ingress_rate=Rate(1_000_000))),
            *(AttachServer(self.server(host)) for host in HOSTS),
        )
        for vm, host in zip(VMS, places, strict=False):
            self.appears(vm, host, shared=False, group="web")

    def server(self, host: str, vtep: int = 1, capabilities: Any = ALL) -> Server:
        return Server(
            host,
            vtep_address=f"192.0.2.{vtep}{host[1]}",
            migration_uri=f"memory://{host}/{vtep}",
            capabilities=frozenset(capabilities),
        )

    @rule(vm=vms, host=hosts, shared=st.booleans(), group=st.sampled_from(["web", ""]))
    def appears(self, vm: str, host: str, shared: bool, group: str) -> None:
        """Started by a person, found by the agent, registered at once: as on most days."""
        self.start_by_hand(vm, host)
        if host in self.world.guests[vm].runs_on:
            nic = interface(VMS.index(vm) + 1, shared, "lan")
            said = Vm(vm, "", "blue", group, (nic,), None, Resources(1, 100))
            self.deliver([Register(host, said, VmState.RUNNING)])

    @rule(vm=vms)
    def disappears(self, vm: str) -> None:
        """Stopped by a person, and deregistered by its owner."""
        self.stop_by_hand(vm)
        if (record := self.table.vm(vm)) is not None:
            held = record.location
            self.deliver([Deregister(held.server_id, vm, held.epoch)])

    # ---- people, behind everybody's back ----

    @rule(vm=vms, host=hosts)
    def start_by_hand(self, vm: str, host: str) -> None:
        guest = self.world.guests[vm]
        if not guest.runs_on and not guest.landed:
            self.turn_on(host)
            guest.runs_on.add(host)

    @rule(vm=vms)
    def stop_by_hand(self, vm: str) -> None:
        self.world.guests[vm].runs_on.clear()

    @rule(vm=vms, host=hosts)
    def move_by_hand(self, vm: str, host: str) -> None:
        guest = self.world.guests[vm]
        if guest.runs_on:
            self.turn_on(host)
            guest.runs_on = {host}

    def turn_on(self, host: str) -> None:
        """What is fenced is off: nothing runs there before its agent is back (docs/fencing.md)."""
        if is_fenced(self.table, host):
            self.ledger.commit(AttachServer(self.server(host)))

    # ---- hosts hear, act, restart, fall silent ----

    @rule(host=hosts, vm=vms)
    def hear(self, host: str, vm: str) -> None:
        wanted = self.ledger.wanted().get((host, vm))
        self.world.heard.pop((host, vm), None)
        if wanted is not None:
            self.world.heard[host, vm] = wanted  # type: ignore[assignment]

    @rule(target=outcomes, host=hosts, vm=vms, works=st.sampled_from([True, True, False]))
    def act(self, host: str, vm: str, works: bool) -> Any:
        outcome = self.world.act(host, vm, works)
        return multiple() if outcome is None else (host, outcome)

    @rule(host=hosts)
    def restart_agent(self, host: str) -> None:
        for vm in VMS:
            self.world.heard.pop((host, vm), None)

    @rule(host=hosts)
    def lapse(self, host: str) -> None:
        owners = {r.vm.vm_id: r.location for r in self.table.all(VmRecord, indexes.VMS)}
        self.ledger.commit(LapseServer(host))
        assert self.table.server(host).liveness is Liveness.SILENT
        assert owners == {r.vm.vm_id: r.location for r in self.table.all(VmRecord, indexes.VMS)}

    @rule(host=hosts, vtep=st.integers(1, 2), capabilities=st.sampled_from([ALL, ALL, set()]))
    def attach(self, host: str, vtep: int, capabilities: Any) -> None:
        self.ledger.commit(AttachServer(self.server(host, vtep, capabilities)))

    @rule()
    def restart_vcenter(self) -> None:
        self.ledger.restart()
        self.ledger.commit(*(AttachServer(self.server(host)) for host in HOSTS))

    # ---- messages: made now, delivered later, again, or never ----

    @rule(target=commands, vm=configurations, host=hosts, state=states, epoch=epochs)
    def say_register(self, vm: Vm, host: str, state: VmState, epoch: int) -> Command:
        guest = self.world.guests[vm.vm_id]
        if guest.landed == host:
            state = VmState.INCOMING
        elif host not in guest.runs_on:
            state = VmState.SHUT_OFF
        elif state is VmState.SHUT_OFF:
            state = VmState.RUNNING
        return Register(host, vm, state, epoch)

    @rule(target=commands, vm=vms, host=hosts, epoch=st.integers(1, 4))
    def say_deregister(self, vm: str, host: str, epoch: int) -> Command:
        return Deregister(host, vm, epoch)

    @rule(target=commands, vm=vms, host=hosts, epoch=epochs, state=states)
    def say_report(self, vm: str, host: str, epoch: int, state: VmState) -> Command:
        return Report(host, (VmStatus(vm, epoch, state),))

    @rule(target=commands, host=hosts, vm=vms, profile=profiles, how=st.integers(0, 3))
    def say_policy(self, host: str, vm: str, profile: Profile | None, how: int) -> Command:
        if how == 0:
            return PutGroup("blue", "web", profile)
        if how == 1:
            return SetVmProfile(vm, profile)
        if how == 2:
            return LeaveGroup("blue", "web", vm, host)
        number = VMS.index(vm) + 1
        return AssignVm(vm, "blue", "web", (Interface(mac(number), network="lan"),))

    @rule(group=st.lists(commands, min_size=1, max_size=4))
    def deliver(self, group: list[Command]) -> None:
        results = self.ledger.commit(*group)
        for command, result in zip(group, results, strict=True):
            if isinstance(result, Refusal):
                continue
            self.only_an_alert_with(result)
            reply = result.reply
            if isinstance(reply, Reply) and reply.confirm and isinstance(command, Register):
                self.confirm(command, reply.confirm)

    def confirm(self, command: Register, confirm: Confirm) -> None:
        """Both hosts are asked, and answer at once."""
        vm = command.vm.vm_id
        old = self.world.truth(confirm.old_owner, vm)
        new = self.world.truth(command.server_id, vm)
        self.register_with(command, Evidence(confirm.epoch, old, new))

    @rule(command=commands, old=st.sampled_from(HostedState))
    def answers_come_late(self, command: Command, old: HostedState) -> None:
        """The hosts may have changed since; the ledger is what it was."""
        record = self.table.vm(command.vm.vm_id) if isinstance(command, Register) else None
        if record is not None:
            late = Evidence(record.location.epoch, old, HostedState.RUNNING)
            self.register_with(command, late)

    def register_with(self, command: Any, evidence: Evidence) -> None:
        known = self.table.vm(command.vm.vm_id) is not None
        (result,) = self.ledger.commit(replace(command, evidence=evidence))
        if isinstance(result, Refusal) or result.refusal is not None:
            return
        if known and result.reply.outcome is Outcome.ARRIVED:
            assert evidence.old_owner is HostedState.ABSENT
            assert evidence.claimant is HostedState.RUNNING

    def only_an_alert_with(self, decision: Any) -> None:
        if decision.refusal is not None:
            assert all(change.key.startswith(("alert/", "dispute/")) for change in decision.changes)

    # ---- moves ----

    @rule(
        target=moves,
        vm=vms,
        to=st.sampled_from([*HOSTS, ""]),
        epoch=st.sampled_from([0, 0, 0, 1, 2]),
    )
    def relocate(self, vm: str, to: str, epoch: int) -> Any:
        self.serial += 1
        operation_id = vm_id(1000 + self.serial)
        (result,) = self.ledger.commit(Relocate(operation_id, vm, to, "operator/a", epoch))
        if isinstance(result, Refusal):
            return multiple()
        for host in HOSTS:
            self.hear(host, vm)
        return operation_id

    @rule(operation_id=moves)
    def cancel(self, operation_id: str) -> None:
        before = self.table.operation(operation_id).phase
        (result,) = self.ledger.commit(Cancel(operation_id))
        if isinstance(result, Refusal):
            assert result.reason in (Reason.TOO_LATE_TO_CANCEL, Reason.ALREADY_DONE)
            assert before not in (Phase.QUEUED, Phase.PREPARING, Phase.COPYING)

    @rule(host=st.sampled_from([*HOSTS, ""]), to=destinations)
    def relocate_all(self, host: str, to: str) -> None:
        """Drains a host, or moves the group; whoever has its turn hears of it later."""
        self.serial += 1
        subject = {"server_id": host} if host else {"tenant": "blue", "name": "web"}
        operation_id, where = vm_id(1000 + self.serial), Where(to)
        command = RelocateAll(operation_id, "operator/a", where=where, limits=ONE, **subject)
        self.ledger.commit(command)

    @rule()
    def give_turns(self) -> None:
        """Said twice it is once."""
        self.ledger.commit(GiveTurns(ONE))
        (again,) = self.ledger.commit(GiveTurns(ONE))
        assert not again.changes  # type: ignore[union-attr]

    @rule(host=hosts, says_so=st.booleans())
    def power_cut(self, host: str, says_so: bool) -> None:
        """The host is off, for good as far as its VMs go; perhaps somebody says so."""
        for vm in VMS:
            guest = self.world.guests[vm]
            guest.runs_on.discard(host)
            guest.landed = "" if guest.landed == host else guest.landed
            self.world.heard.pop((host, vm), None)
        self.ledger.commit(LapseServer(host))
        if says_so:
            self.serial += 1
            self.ledger.commit(Fence(vm_id(1000 + self.serial), host, "operator/a", "it is off"))

    @rule(vm=vms, to=destinations)
    def settle(self, vm: str, to: str) -> None:
        """Hosts that are attached are asked, and answer at once. What is settled runs nowhere but
        where it was settled to."""
        record = self.table.vm(vm)
        if record is None:
            return
        suspected = suspects(self.table, record)
        said = {h: self.world.truth(h, vm) for h in HOSTS if self.attached(h)}
        command = Settle(vm, to, "operator/a", record.location.epoch, said)
        (result,) = self.ledger.commit(command)
        if not isinstance(result, Refusal):
            assert self.world.guests[vm].runs_on & suspected <= {to}

    def attached(self, host: str) -> bool:
        server = self.table.server(host)
        return server is not None and server.liveness is Liveness.ATTACHED

    @rule(host=hosts, cordoned=st.booleans())
    def cordon(self, host: str, cordoned: bool) -> None:
        self.ledger.commit(CordonServer(host, cordoned))

    @rule(said=outcomes)
    def outcome(self, said: tuple[str, MoveOutcome]) -> None:
        self.hear_outcome(said)

    @rule(said=consumes(outcomes))
    def outcome_lost(self, said: tuple[str, MoveOutcome]) -> None:
        pass

    @rule(target=outcomes, vm=vms, steps=rounds, fails=st.integers(0, 20))
    def goes_on_for_a_while(self, vm: str, steps: Iterable[str], fails: int) -> Any:
        """So that moves get somewhere often enough; what was said may be said again later."""
        if (record := self.table.vm(vm)) is not None and not record.operation_id:
            self.relocate(vm, "", 0)
        said = []
        for step, host in enumerate(steps):
            self.hear(host, vm)
            outcome = self.world.act(host, vm, works=step != fails)
            if outcome is not None:
                said.append((host, outcome))
                self.hear_outcome(said[-1])
                self.never_twice()
        return multiple(*said)

    @rule()
    def a_quiet_morning(self) -> None:
        """Everybody is there, and can do everything."""
        self.ledger.commit(*(AttachServer(self.server(host)) for host in HOSTS))
        self.ledger.commit(*(CordonServer(host, False) for host in HOSTS))

    def hear_outcome(self, said: tuple[str, MoveOutcome]) -> None:
        host, outcome = said
        before = self.table.operation(outcome.operation_id)
        self.ledger.commit(Heard(host, outcome))
        source = before is not None and before.source == host
        if source and outcome.truth is HostedState.ABSENT:
            self.proofs.add((outcome.operation_id, outcome.epoch))

    # ---- what always holds ----

    @invariant()
    def never_twice(self) -> None:
        """I1, in the world: whatever was ordered, a VM runs in one place."""
        for guest in self.world.guests.values():
            assert len(guest.runs_on) + bool(guest.landed) <= 1

    @invariant()
    def a_start_is_ordered_only_on_proof(self) -> None:
        for operation in self.table.all(Operation, indexes.OPERATIONS):
            if operation.epoch_after:
                assert (operation.operation_id, operation.epoch_before) in self.proofs
        for vm in VMS:
            wanted = [w for h in HOSTS if (w := self.ledger.wanted().get((h, vm))) is not None]
            starts = [w for w in wanted if w.move and w.move.step is MoveStep.START]  # type: ignore
            assert len(starts) <= 1 and all(w.owned for w in starts)  # type: ignore
            assert sum(w.owned for w in wanted) <= 1  # type: ignore
            for other in wanted:
                assert other.owned or other.ports is PortState.CLOSED  # type: ignore

    @invariant()
    def epochs_never_go_back(self) -> None:
        """I3, through deregistration and restarts too: greater with every new owner."""
        for vm in VMS:
            record, grave = self.table.vm(vm), self.table.tombstone(vm)
            assert record is None or grave is None
            held = record.location.epoch if record else grave.epoch if grave else 0
            owner = record.location.server_id if record else ""
            before, owner_before = self.epochs.get(vm, (0, ""))
            assert held > before if owner not in ("", owner_before) else held >= before
            self.epochs[vm] = held, owner

    @invariant()
    def what_waits_holds_nobody_up(self) -> None:
        """A VM has one move at most, and its whole has not ended."""
        waiting = [o for o in self.table.all(Operation, indexes.ACTIVE) if o.vm_id]
        assert len({o.vm_id for o in waiting}) == len(waiting)
        for move in waiting:
            whole = self.table.operation(move.parent) if move.parent else None
            assert whole is None or whole.phase is Phase.UNDER_WAY

    @invariant()
    def a_claim_has_one_holder(self) -> None:
        """I8, and the index says what the records say."""
        held: dict[Claim, str] = {}
        for record in self.table.all(VmRecord, indexes.VMS):
            for claim in record.vm.claims():
                assert claim not in held
                held[claim] = record.vm.vm_id
        for vni in VNIS:
            for address in [f(n) for f in (mac, ip) for n in (1, 2, 3, 9)]:
                claim = Claim(vni, address)
                assert self.table.holder(claim) == held.get(claim)

    @invariant()
    def vms_and_their_moves_name_each_other(self) -> None:
        moves = (o for o in self.table.all(Operation, indexes.ACTIVE) if o.in_motion)
        active = {o.operation_id: o for o in moves}
        for record in self.table.all(VmRecord, indexes.VMS):
            if record.operation_id:
                move = active.pop(record.operation_id)
                assert move.vm_id == record.vm.vm_id
                owner = move.destination if move.epoch_after else move.source
                assert record.location.server_id == owner
                assert record.location.epoch == (move.epoch_after or move.epoch_before)
        assert not active

    @invariant()
    def records_are_filed_under_their_keys(self) -> None:
        for key, record in self.ledger.records.items():
            if isinstance(record, VmRecord):
                assert key == keys.vm(record.vm.vm_id)
            if isinstance(record, Tombstone):
                assert key == keys.gone(record.vm_id)


TestCore = Core.TestCase
TestCore.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
