"""An identity that changes hands too often, or that two want, and whether it is frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """The identity changed hands. `before` and `after` are vServers of a VM, VMs of an address."""

    at_ms: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """`identity`: a vm_id, or VNI/MAC or VNI/IP, as `vctl` writes keys. `frozen_ms` 0: not frozen.

    `holder`: who had it last; `turns` are those of the last while, the oldest first.
    """

    identity: str
    holder: str
    touched_ms: int
    turns: tuple[Turn, ...] = ()
    frozen_ms: int = 0
    revision: int = 0
