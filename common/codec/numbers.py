"""Numbers that others have measured. Forecasts, sums and comparisons are made of them."""

from __future__ import annotations

MOST = 1e15


def measured(value: float) -> float:
    """The value where it can be one: 0, which means that nobody knows, for what is no number, below
    nothing, or beyond everything."""
    return value if 0.0 <= value <= MOST else 0.0
