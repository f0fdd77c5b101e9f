"""One result: what was measured, beside what, under which conditions."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Entry:
    """`value` and `baseline_value` are medians, in `unit`; `ratio` = value / baseline_value."""

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    ratio: float
    conditions: dict[str, Any]

    def json(self) -> dict[str, Any]:
        return asdict(self)


def compared(
    name: str,
    unit: str,
    subject: Sequence[float],
    baseline: str,
    rival: Sequence[float],
    **conditions: Any,
) -> Entry:
    """Medians; every single value stands in the conditions, for who doubts the median."""
    value, other = statistics.median(subject), statistics.median(rival)
    return Entry(
        name=name,
        value=round(value, 3),
        unit=unit,
        baseline=baseline,
        baseline_value=round(other, 3),
        ratio=round(value / other, 3),
        conditions={
            "runs": len(subject),
            "values": [round(v, 3) for v in subject],
            "baseline_values": [round(v, 3) for v in rival],
            "mean_ratio": round(statistics.mean(subject) / statistics.mean(rival), 3),
            **versions(),
            **conditions,
        },
    )


def versions() -> dict[str, str]:
    """What every result names."""
    return {"python": platform.python_version(), "grpcio": version("grpcio")}
