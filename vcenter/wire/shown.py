"""What a neighbour may learn of us: everything, some tenants' VMs, or answers to lookups."""

from __future__ import annotations

from dataclasses import replace

from common.model.telling import Tells
from vcenter.federation.tellings import Tellings
from vcenter.wire.caller import Caller, Role

_LOOKUPS = frozenset(
    {
        "Signaling/Lookup",
        "Signaling/LookupStream",
        "Directory/Lookup",
        "Directory/BatchLookup",
    }
)


class Shown:
    def __init__(self, tellings: Tellings) -> None:
        self._tellings = tellings

    def to(self, caller: Caller, method: str) -> Caller:
        """The same caller, confined to what it may see by this `Service/Method`. On whose behalf a
        neighbour calls, and so as whom, is another matter (`vouched`)."""
        if caller.role is not Role.DOMAIN:
            return caller
        told = self._tellings.of(caller.name)
        if told.tells is Tells.EVERYTHING:
            return caller
        if told.tells is Tells.LOOKUPS and method in _LOOKUPS:
            return caller
        return replace(caller, tenants=frozenset(told.tenants))
