"""What a neighbour, another domain's vCenter, may learn of us."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_TENANTS = 1000


class Tells(StrEnum):
    EVERYTHING = "everything"
    TENANTS = "tenants"  # the VMs of some, and the vServers
    LOOKUPS = "lookups"  # answers, when it asks; nothing that it could follow


@dataclass(frozen=True, slots=True)
class Telling:
    """`by_command`: somebody has said so, and the configuration does not count. Else it is what the
    configuration said when it was last written down. Raises ValueError."""

    domain: str
    tells: Tells = Tells.EVERYTHING
    tenants: tuple[str, ...] = ()
    by_command: bool = False
    revision: int = 0

    def __post_init__(self) -> None:
        if (self.tells is Tells.TENANTS) != bool(self.tenants):
            raise ValueError("tenants: those that are meant with `tenants`, and only there")
        if len(self.tenants) > MAX_TENANTS:
            raise ValueError(f"tenants: at most {MAX_TENANTS}")

    def says_the_same(self, other: Telling) -> bool:
        return (self.tells, self.tenants) == (other.tells, other.tenants)
