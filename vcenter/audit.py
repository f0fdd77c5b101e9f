"""Who changed what, and who was refused: every mutation, as the audit log keeps it.

`Ledger` tells of what was carried out, the wire of what was refused; who it is for travels in a
context variable from the call to wherever its command is submitted. Writing happens behind: a call
never waits for it. What a crash of the process can lose is the last `PAUSE_S`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.value import value
from vcenter.journal import Entry, Journal
from vcenter.ledger.writer import Done

log = structlog.get_logger()

PAUSE_S = 0.2  # between two writes, so that many entries share one
PENDING = 10_000  # entries that wait; beyond that they are counted, not kept
MAX_SUBJECT = 200
_PATHS = tuple(
    tuple(path.split("."))
    for path in (
        *("vm.vm_id", "vm_id", "outcome.vm_id", "operation_id", "network.network_id"),
        *("network_id", "tenant.tenant_id", "tenant_id", "group.name", "name"),
        *("begin.group", "identity", "key.vm_id", "server.server_id", "server_id"),
        *("telling.domain", "domain"),
    )
)


@value
class Origin:
    """For whom something is done: the caller, and from where it calls."""

    who: str
    peer: str = ""


origin: ContextVar[Origin] = ContextVar("origin", default=Origin("vcenter"))  # noqa: B039 - a value


class Audit:
    """`done` and `refused` from anywhere; `run` is one task, owned by the composition."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self._clock = clock
        self._pending: dict[object, Entry] = {}
        self._lost = 0
        self._wake = asyncio.Event()

    def done(self, command: object, revision: int) -> None:
        """One command was carried out and changed something."""
        self._put(object(), self._entry(command, "done", revision))

    def all_done(self, commands: Sequence[object], results: Sequence[Done | Exception]) -> None:
        """Of many that were submitted together: one entry, and one for each kind of refusal."""
        changed = [n for n, r in enumerate(results) if isinstance(r, Done) and r.changed]
        if changed:
            last = results[changed[-1]]
            revision = last.revision if isinstance(last, Done) else 0
            entry = self._entry(commands[changed[0]], "done", revision)
            self._put(object(), replace(entry, count=len(changed)))
        kinds = Counter(r.reason.name for r in results if isinstance(r, Refusal))
        for reason, count in kinds.items():
            self._put(object(), replace(self._entry(commands[0], reason), count=count))

    def refused(self, what: object, name: str, refusal: Refusal, by: Origin) -> None:
        """Of a flood of like refusals there is one line a write, with their number."""
        entry = self._entry(what, refusal.reason.name)
        entry = replace(entry, who=by.who, peer=by.peer, what=name)
        host = by.peer.rpartition(":")[0]
        key = (by.who, host, name, entry.outcome)
        known = self._pending.get(key)
        self._put(key, entry if known is None else replace(known, count=known.count + 1))

    def _entry(self, what: object, outcome: str, revision: int = 0) -> Entry:
        by = origin.get()
        return Entry(
            at_ms=self._clock.now_ms(),
            who=by.who,
            peer=by.peer,
            what=getattr(what, "called", type(what).__name__),
            subject=subject_of(what),
            revision=revision,
            outcome=outcome,
        )

    def _put(self, key: object, entry: Entry) -> None:
        if len(self._pending) >= PENDING and key not in self._pending:
            self._lost += 1
            return
        self._pending[key] = entry
        self._wake.set()

    async def run(self) -> None:
        """For ever. A journal that cannot be written holds nobody up; it is said in the log."""
        while True:
            await self._wake.wait()
            await self.flush()
            await self._clock.sleep(PAUSE_S)

    async def flush(self) -> None:
        """Everything so far is durable when this returns, or the log says that it is not."""
        self._wake.clear()
        entries, self._pending = list(self._pending.values()), {}
        lost, self._lost = self._lost, 0
        if lost:
            log.error("audit entries lost", entries=lost, why="more than could be written")
        if not entries:
            return
        try:
            if self.journal.blocks:
                await asyncio.to_thread(self.journal.append, entries)
            else:
                self.journal.append(entries)
        except OSError as error:
            log.error("audit entries lost", entries=len(entries), why=str(error))


def subject_of(thing: object) -> str:
    """Which VM, operation, network … a command or a request is about; "" if of none."""
    for path in _PATHS:
        value: object = thing
        for part in path:
            value = getattr(value, part, None)
        if value and isinstance(value, str):
            return value[:MAX_SUBJECT]
    return ""
