"""Disks and budgets: how a VM is to be copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.codec.checker import Checker
from common.codec.enums import IF_OVER
from common.model.budget import DOWNTIME_MS, MAX_DOWNTIME_MS, Budget, IfOver
from common.model.disk import MAX_PATH, Disk
from common.pb.vsignal.v1 import operations_pb2, types_pb2

MAX_DISKS, MAX_FORMAT, MAX_BYTES = 64, 16, 1 << 60


def to_disks(disks: Iterable[Disk]) -> list[types_pb2.Disk]:
    return [
        types_pb2.Disk(
            path=d.path, format=d.format, bytes=d.bytes, used_bytes=d.used, local=d.local
        )
        for d in disks
    ]


def from_disks(wire: Sequence[types_pb2.Disk]) -> tuple[Disk, ...]:
    """Within bounds; whether such a disk can be copied at all is `Disk.problem`'s to say. A host
    whose guest has a strange one is heard all the same."""
    return tuple(
        Disk(
            path=disk.path[:MAX_PATH],
            format=disk.format[:MAX_FORMAT],
            bytes=min(disk.bytes, MAX_BYTES),
            used=min(disk.used_bytes, MAX_BYTES),
            local=disk.local,
        )
        for disk in wire[:MAX_DISKS]
    )


def to_budget(budget: Budget) -> operations_pb2.Budget:
    return operations_pb2.Budget(
        downtime_ms=budget.downtime_ms,
        if_over=IF_OVER.to(budget.if_over),
        deadline_ms=budget.deadline_ms,
    )


def from_budget(check: Checker, wire: operations_pb2.Budget) -> Budget:
    """An absent one is the default."""
    with check.at("budget"):
        shortest = wire.downtime_ms <= MAX_DOWNTIME_MS
        check.require(shortest, "downtime_ms", f"1..{MAX_DOWNTIME_MS}")
        return Budget(
            downtime_ms=wire.downtime_ms or DOWNTIME_MS,
            if_over=IF_OVER.read(check, "if_over", wire.if_over, IfOver.SLOW),
            deadline_ms=wire.deadline_ms,
        )
