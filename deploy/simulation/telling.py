"""A story from beginning to end in a loop of its own, and what became of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from logging import CRITICAL, INFO
from typing import Any, Protocol

import structlog

from common.model.operation import Operation
from deploy.simulation.faults import Faults
from deploy.simulation.journal import Journal
from deploy.simulation.loop import Stuck, VirtualLoop, current, run, take_down
from deploy.simulation.world import World


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one seed."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    faults: int
    moves: dict[str, int]
    seconds: float  # of virtual time
    lines: tuple[str, ...]


class Story(Protocol):
    world: World

    @property
    def faults(self) -> Faults: ...

    async def tell(self) -> None: ...


def told(seed: int, make: Callable[[int, VirtualLoop, Journal], Story], *, keep: bool) -> Told:
    """Run one seed. `keep`: with what the daemons log."""
    loop = VirtualLoop(lambda text: journal.violated("defect", text))
    journal = Journal(loop)
    logging_as_it_was = structlog.get_config()
    _listen(journal if keep else None)
    _start_clean()
    gc.disable()  # its moments depend on the machine's memory, and it closes generators
    story = make(seed, loop, journal)
    try:
        run(loop, story.world.kernel, story.tell())
    except Stuck as error:
        journal.violated("I6", str(error))
    finally:
        result = _result(seed, story, journal, keep)
        take_down(loop, story.world.processes)
        gc.enable()
        structlog.configure(**logging_as_it_was)
    return result


def _start_clean() -> None:
    """What the last story left is collected. What there was before the first one (modules, the
    contract) stays for ever, and is not walked through each time."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()


def _result(seed: int, story: Story, journal: Journal, keep: bool) -> Told:
    moves: dict[str, int] = {}
    for operation in _operations(story.world).values():
        moves[operation.phase.value] = moves.get(operation.phase.value, 0) + 1
    return Told(
        seed=seed,
        violations=tuple(journal.violations),
        digest=journal.digest(),
        faults=story.faults.count,
        moves=moves,
        seconds=story.world.loop.time(),
        lines=tuple(journal.story if keep else journal.lines),
    )


def _operations(world: World) -> dict[str, Operation]:
    """Each once, in however many ledgers it is."""
    return {
        record.operation_id: record
        for center in world.centers.values()
        for record in center.laws.records.values()
        if isinstance(record, Operation)
    }


def _listen(journal: Journal | None) -> None:
    """The daemons' own words, or silence: they say a lot."""

    def write(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
        if journal is not None:
            fields = {k: v for k, v in event.items() if k != "event" and v is not None}
            said = " ".join(f"{key}={value}" for key, value in sorted(fields.items()))
            journal.quote(current().name, f"{level}: {event['event']} {said}".rstrip())
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, write],
        wrapper_class=structlog.make_filtering_bound_logger(
            INFO if journal is not None else CRITICAL
        ),
    )
