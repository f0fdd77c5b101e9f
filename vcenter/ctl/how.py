"""How VMs are to be moved: what all commands that move them are asked with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar

import click

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from vcenter.ctl.app import Seconds

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class How:
    """What all kinds of moves are asked for with."""

    destination: str
    near: str
    priority: int
    kind: str
    copy_disks: bool
    budget: operations_pb2.Budget
    plan: bool
    wait: bool

    def request(self, **subject: Any) -> signaling_pb2.RelocateRequest:
        return signaling_pb2.RelocateRequest(
            destination=self.destination,
            near=self.near,
            priority=self.priority,
            kind=operations_pb2.MoveKind.Value(f"MOVE_KIND_{self.kind.upper()}"),
            copy_disks=self.copy_disks,
            budget=self.budget,
            plan_only=self.plan,
            **subject,
        )


def _milliseconds(seconds: float | None) -> int:
    """What was given, at least 1; 0 where nothing was."""
    return 0 if seconds is None else min(max(round(seconds * 1000), 1), 0xFFFFFFFF)


_OPTIONS = (
    click.option(
        "--to",
        "destination",
        metavar="[DOMAIN/]SERVER",
        default="",
        help="The destination; without it, the least loaded vServer that fits. DOMAIN/SERVER is one"
        " of another domain, DOMAIN/ any that fits there.",
    ),
    click.option(
        "--near",
        metavar="PLACE",
        default="",
        help="The vServer nearest to it that fits: a site, a vServer, or LATITUDE,LONGITUDE.",
    ),
    click.option(
        "--priority",
        type=click.IntRange(-100, 100),
        default=0,
        help="In the queue, higher ones have their turn first; 0.",
    ),
    click.option(
        "--kind",
        type=click.Choice(["live", "suspend", "cold"]),
        default="live",
        help="Of VMs that run: live; suspend: they stand still meanwhile; cold: they are shut down,"
        " moved, and started. A VM that is off is moved as it is.",
    ),
    click.option(
        "--copy-disks",
        is_flag=True,
        help="There is no shared storage: its own disks are copied, while it runs or while it is"
        " off.",
    ),
    click.option("--plan", is_flag=True, help="Only say what would be done, or why it cannot be."),
    click.option("--wait/--no-wait", default=True, help="Wait for the end (default), or do not."),
)


_BUDGET = (
    click.option(
        "--downtime",
        type=Seconds(),
        metavar="DURATION",
        help="Of a live move: for how long the guest may stand still; 400ms.",
    ),
    click.option(
        "--if-over",
        type=click.Choice(["refuse", "slow", "suspend"]),
        default="slow",
        help="When that cannot be kept: the VM stays (refuse); the guest is given less CPU time"
        " (slow, the default); or it stands still for the rest of its copy (suspend).",
    ),
    click.option(
        "--deadline",
        type=Seconds(),
        metavar="DURATION",
        help="From the copy's begin to the switch. Then the VM stays, or stands still (suspend).",
    ),
)


def budget_options(function: F) -> F:
    """The options of a budget, handed over as one `budget`."""

    @wraps(function)
    def wrapper(*args: Any, **given: Any) -> Any:
        budget = operations_pb2.Budget(
            downtime_ms=_milliseconds(given.pop("downtime")),
            if_over=operations_pb2.IfOver.Value(f"IF_OVER_{given.pop('if_over').upper()}"),
            deadline_ms=_milliseconds(given.pop("deadline")),
        )
        return function(*args, budget=budget, **given)

    return _with(wrapper, _BUDGET)  # type: ignore[return-value]


def move_options(function: F) -> F:
    """The options of a move, handed over as one `how`."""

    @budget_options
    @wraps(function)
    def wrapper(*args: Any, **given: Any) -> Any:
        how = How(**{each.name: given.pop(each.name) for each in fields(How)})
        if how.destination and how.near:
            raise click.UsageError("--to and --near exclude each other")
        return function(*args, how=how, **given)

    return _with(wrapper, _OPTIONS)  # type: ignore[return-value]


def _with(wrapper: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        wrapper = option(wrapper)
    return wrapper
