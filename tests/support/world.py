"""A small world in which VMs truly run, for the properties of the core.

Hosts hear orders late, act on what they heard, and what they say travels late, twice, in any order
or never. People move, stop and start VMs behind everybody's back, but never start one twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import Refusal
from common.model.identity import Claim
from common.model.operation import HostedState, MoveOutcome, MoveStep
from common.model.wanted import WantedVm
from tests.support.hearing import Hearers
from vcenter.core.command import Command, Decision
from vcenter.core.indexes import Tag, claims, tags
from vcenter.core.overlay import Overlay
from vcenter.core.servers import Restarted
from vcenter.core.table import Change, Table
from vcenter.core.wanted import Item, affected, hosts_on, wanted_digest, wanted_vm
from vcenter.ledger.records import decode, encode

HOSTS = ("h1", "h2", "h3")
VNIS = (100, 200)


@dataclass
class Guest:
    """Where a VM truly is. `landed`: its memory has arrived there and waits to be started."""

    runs_on: set[str] = field(default_factory=set)
    landed: str = ""


@dataclass
class World:
    """`heard[host, vm_id]` is the host's last word from the vCenter, however old."""

    guests: dict[str, Guest]
    heard: dict[tuple[str, str], WantedVm] = field(default_factory=dict)

    def truth(self, host: str, vm_id: str) -> HostedState:
        guest = self.guests[vm_id]
        here = host in guest.runs_on or guest.landed == host
        return HostedState.RUNNING if here else HostedState.ABSENT

    def act(self, host: str, vm_id: str, works: bool) -> MoveOutcome | None:
        """The host carries out the order that it heard last, as an agent does."""
        wanted = self.heard.get((host, vm_id))
        if wanted is None or wanted.move is None:
            return None
        order = wanted.move
        ok = self._carry_out(host, self.guests[vm_id], order.step, order.peer_server, works)
        return MoveOutcome(
            operation_id=order.operation_id,
            vm_id=vm_id,
            epoch=order.epoch,
            step=order.step,
            ok=ok,
            truth=self.truth(host, vm_id),
            policy_hash=wanted.profile_hash,
        )

    def _carry_out(self, host: str, guest: Guest, step: MoveStep, peer: str, works: bool) -> bool:
        here = host in guest.runs_on or guest.landed == host
        if step is MoveStep.PREPARE:
            return works and not here
        if step is MoveStep.COPY:
            if here and works:
                guest.runs_on.discard(host)
                guest.landed = peer
            return works or not here
        if step is MoveStep.START:
            if guest.landed == host and works:
                guest.runs_on.add(host)
                guest.landed = ""
            return host in guest.runs_on
        if step is MoveStep.CLEAN:
            return works and not here
        return works and here  # ABORT


class Ledger:
    """Table, overlay and commands, as the writer uses them, without the writer."""

    def __init__(self) -> None:
        self.table = Table()
        self.hearers = Hearers(self.table, HOSTS, VNIS)
        self.now_ms = 1_700_000_000_000
        self.records: dict[str, Any] = {}
        self._seen: set[str] = set()  # VMs, tags and claims that there have ever been
        self._tags: set[Tag] = set()
        self._claims: set[Claim] = set()

    def commit(self, *commands: Command) -> list[Decision | Refusal]:
        """One group: each command sees the ones before it; then all become visible."""
        overlay = Overlay(self.table)
        results = [self._decide(overlay, command) for command in commands]
        for result in results:
            if isinstance(result, Decision) and result.changes:
                self.apply(result.changes)
        self.check_overlay(overlay)
        return results

    def _decide(self, overlay: Overlay, command: Command) -> Decision | Refusal:
        self.now_ms += 7
        try:
            decision = command.decide(overlay, self.now_ms)
        except Refusal as refusal:
            return refusal
        overlay.add(decision.changes)
        return decision

    def apply(self, changes: Iterable[Change]) -> None:
        before = self.wanted()
        applied = self.table.apply(self.table.revision + 1, tuple(changes))
        for change in applied:
            self.records.pop(change.key, None)
            if change.after is not None:
                self.records[change.key] = change.after
        after = self.wanted()
        named = {pair for change in applied for pair in affected(self.table, change)}
        changed = {pair for pair in before if before[pair] != after[pair]}
        assert changed <= named, f"not told: {changed - named}"
        self._check_digests(before, after)
        for change in applied:
            self.hearers.note(change, named)
        if self.table.revision % 3 == 0:  # sometimes several changes become one message
            self.hearers.hear()

    def _check_digests(self, *wanted: dict[tuple[str, Item], object]) -> None:
        """The same digest, the same words; and it can be had without making them."""
        for (host, item), now in wanted[-1].items():
            if not isinstance(item, str):
                continue
            digest = now.digest if isinstance(now, WantedVm) else None
            assert wanted_digest(self.table, host, item) == digest
            before = wanted[0].get((host, item))
            if isinstance(before, WantedVm) and before.digest == digest:
                assert before == now, (host, item)

    def restart(self) -> None:
        """What was durable is read back; nothing else is left."""
        stored = {key: encode(record) for key, record in self.records.items()}
        revision, old = self.table.revision, self.records
        self.table, self.records = Table(), {}
        for key, value in stored.items():
            assert value is not None
            self.table.apply(old[key].revision, [Change(key, decode(key, value))])
            self.records[key] = self.table.get(key)
        self.table.apply(revision, [])
        self.hearers.reattach(self.table)
        assert self.records == old
        self.commit(Restarted())

    def wanted(self) -> dict[tuple[str, Item], object]:
        vm_ids = {key.removeprefix("vm/") for key in self.records if key.startswith("vm/")}
        self._seen |= vm_ids
        every: dict[tuple[str, Item], object] = {}
        for host in HOSTS:
            every |= {(host, vm_id): wanted_vm(self.table, host, vm_id) for vm_id in self._seen}
            every |= {(host, vni): host in hosts_on(self.table, vni) for vni in VNIS}
        return every

    # ---- the indexes agree with the records ----

    def check_overlay(self, overlay: Overlay) -> None:
        for key, record in self.records.items():
            seen = overlay.get(key)
            assert seen is not None and replace(seen, revision=record.revision) == record
        for view in (overlay, self.table):
            filed: dict[Tag, set[str]] = {}
            held: dict[Claim, str] = {}
            for key, record in self.records.items():
                for tag in tags(record):
                    filed.setdefault(tag, set()).add(key)
                for claim in claims(record):
                    held[claim] = record.vm.vm_id
            self._tags |= set(filed)
            self._claims |= set(held)
            for tag in self._tags:
                assert set(view.find(tag)) == filed.get(tag, set()), tag
            for claim in self._claims:
                assert view.holder(claim) == held.get(claim), claim
