"""What each neighbour may learn: as somebody has said, or as it is configured."""

from __future__ import annotations

from collections.abc import Iterable

from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.telling import Telling
from vcenter.core.telling import Configured, Tell
from vcenter.federation.settings import DomainSettings
from vcenter.ledger.ledger import Ledger

AGAIN_S = 1.0


class Tellings:
    def __init__(self, domains: Iterable[DomainSettings], ledger: Ledger, clock: Clock) -> None:
        self._configured = {domain.name: domain.telling for domain in domains}
        self._ledger = ledger
        self._clock = clock

    def of(self, domain: str) -> Telling:
        """Of one that is no neighbour of ours, as of one of which nothing is said."""
        ordered = self._ledger.table.telling(domain)
        if ordered is not None and ordered.by_command:
            return ordered
        return self._configured.get(domain) or Telling(domain)

    async def tell(self, telling: Telling | None, domain: str) -> Telling:
        """None: as it is configured. Raises `Refusal`."""
        configured = self._configured.get(domain)
        if configured is None:
            raise Refusal(Reason.UNKNOWN_DOMAIN, f"domain {domain!r} is no neighbour of ours")
        await self._ledger.submit(Tell(telling or configured))
        return self.of(domain)

    async def run(self) -> None:
        """Write down what the configuration says, where it counts and has changed: who followed us
        before must be told anew."""
        for telling in self._configured.values():
            while not await self._written(telling):
                await self._clock.sleep(AGAIN_S)

    async def _written(self, telling: Telling) -> bool:
        try:
            await self._ledger.submit(Configured(telling))
        except Refusal:
            return False  # the store cannot be written now
        return True
