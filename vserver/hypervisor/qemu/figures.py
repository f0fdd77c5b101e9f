"""A copy in figures: what QEMU says of memory, and of the disks beside it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common.model.operation import Progress
from vserver.hypervisor.port import Copied, writing
from vserver.hypervisor.qemu.mirror import Mirrors


def progress(ram: Mapping[str, Any], mirrors: Mirrors | None) -> Progress:
    return with_disks(_of_memory(ram), mirrors)


def with_disks(memory: Progress, mirrors: Mirrors | None) -> Progress:
    """The progress of both."""
    if mirrors is None:
        return memory
    total, done = mirrors.total, mirrors.done
    return replace(
        memory,
        bytes_total=memory.bytes_total + total,
        bytes_processed=memory.bytes_processed + done,
        bytes_remaining=memory.bytes_remaining + total - done,
        disk_bytes_total=total,
        disk_bytes_processed=done,
    )


def copied(seen: Mapping[str, Any], ram: Mapping[str, Any]) -> Copied:
    sent, speed = int(ram.get("transferred", 0)), float(ram.get("mbps", 0.0)) * 1e6 / 8
    passed = (ram.get("normal", 0) + ram.get("duplicate", 0)) * ram.get("page-size", 0)
    return Copied(
        sent,
        max(float(seen.get("downtime", 0)), 1.0),  # QEMU counts whole ms, so also less
        int(ram.get("dirty-sync-count", 0)),
        speed,
        writing(passed, ram.get("total", 0), sent, speed),
    )


def _of_memory(ram: Mapping[str, Any]) -> Progress:
    remaining = int(ram["remaining"])
    return Progress(
        bytes_total=int(ram["total"]),
        bytes_processed=int(ram["total"]) - remaining,
        bytes_remaining=remaining,
        bytes_per_second=float(ram.get("mbps", 0.0)) * 1e6 / 8,
        iteration=int(ram.get("dirty-sync-count", 0)),
    )
