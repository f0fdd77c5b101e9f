"""Generations of a ledger: a restored backup begins a new one.

What was acknowledged after the backup was made had revisions that a restored ledger would give
again, to other changes. So it goes on far above all of them, and whoever compares can tell.
"""

from __future__ import annotations

_BITS = 32  # a thousand writes a second for fifty days; 2,047 restores fit beside it


def generation(revision: int) -> int:
    return revision >> _BITS


def next_generation(revision: int) -> int:
    """The revision at which the next generation begins."""
    return (generation(revision) + 1) << _BITS
