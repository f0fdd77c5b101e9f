"""All other vCenters that this one knows: questions that its own ledger cannot answer go here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence

import grpc.aio

from common.clock import Clock
from common.codec.vm import plain_key
from common.pb.vsignal.v1 import federation_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core import indexes
from vcenter.core.duplicate import Held
from vcenter.core.table import Table
from vcenter.federation.asked import Asked
from vcenter.federation.duplicates import Duplicates
from vcenter.federation.followed import Followed
from vcenter.federation.forwarding import clear_abroad, forwarded
from vcenter.federation.neighbour import Dial, Neighbour
from vcenter.federation.settings import DomainSettings
from vcenter.ledger.ledger import Ledger
from vcenter.wire.caller import Caller


class Federation:
    """`run` it. Everything that it knows is soft: it is told again after a restart."""

    def __init__(
        self,
        own: str,
        domains: Sequence[DomainSettings],
        ledger: Ledger,
        dial: Dial,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self.own = own
        self._ledger = ledger
        self._duplicates = Duplicates(own, ledger, self._held)
        self._followed = [
            Followed(d, dial, own, clock, chance, self._duplicates.seen)
            for d in domains
            if d.relation != "parent"
        ]
        self._asked = [
            Asked(d, dial, own, clock, chance) for d in domains if d.relation == "parent"
        ]
        self.neighbours: Sequence[Neighbour] = (*self._asked, *self._followed)
        if self._followed:
            self._duplicates.listen()

    def copies(self) -> Iterable[tuple[str, Table]]:
        """Of each domain that is followed, its name and what is known of its ledger."""
        return ((followed.name, followed.copy.table) for followed in self._followed)

    @property
    def parents(self) -> Sequence[Neighbour]:
        """Of whom nothing is kept: they are asked."""
        return self._asked

    async def run(self) -> None:
        """Until it is cancelled."""
        if not self.neighbours:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                for followed in self._followed:
                    tasks.create_task(followed.run())
                for neighbour in self.neighbours:
                    if neighbour.renewal is not None:
                        tasks.create_task(neighbour.renewal.run())
                tasks.create_task(self._duplicates.run())
        finally:
            for neighbour in self.neighbours:
                await neighbour.close()

    # ---- questions ----

    async def complete(
        self, request: pb.LookupRequest, response: pb.LookupResponse, caller: Caller
    ) -> None:
        """Fill in what was not found here: from the copies, then by asking. Who is confined is
        answered from the copies alone: those whom we ask would not know on whose behalf. What
        nobody has heard of since it was given to another domain is found where it went."""
        clear_abroad(self._ledger.table, response)
        missing = [n for n, result in enumerate(response.results) if not result.found]
        left = [n for n in missing if not self._fill(request, response, n, caller)]
        not_asked = {f.name for f in self._followed if not f.is_current}
        if left and not caller.confined:
            not_asked |= await self._ask(request, response, left)
        elif left:
            not_asked |= {way.name for way in self._ways(request.asked)}
        for n in left:
            if response.results[n].found:
                continue
            last = forwarded(self._ledger.table, plain_key(request.keys[n]), caller)
            if last is not None:
                response.results[n].CopyFrom(last)
            else:
                _deny(response.results[n], not_asked)

    def _fill(
        self, request: pb.LookupRequest, response: pb.LookupResponse, n: int, caller: Caller
    ) -> bool:
        """The word that was heard last is the better one; between two, the higher epoch, and then
        that of the domain itself."""
        key = plain_key(request.keys[n])
        found = [(f, r) for f in self._followed if (r := f.find(key, caller)) is not None]
        if not found:
            return False

        def rank(one: tuple[Followed, pb.LookupResult]) -> tuple[bool, int, bool]:
            followed, result = one
            its_own = result.authority == followed.name
            return followed.is_current, result.location.epoch, its_own

        _, best = max(found, key=rank)
        response.results[n].CopyFrom(best)
        return True

    async def _ask(
        self, request: pb.LookupRequest, response: pb.LookupResponse, left: Iterable[int]
    ) -> set[str]:
        """Who could not be asked."""
        silent = set()
        results = response.results
        asked = [*request.asked, self.own, *(f.name for f in self._followed)]
        for way in self._ways(request.asked):
            numbers = [n for n in left if not results[n].found]
            keys = [request.keys[n] for n in numbers]
            try:
                answers = await way.lookup(keys, asked) if keys else ()
            except grpc.aio.AioRpcError:
                silent.add(way.name)
                continue
            for n, answer in zip(numbers, answers, strict=True):
                if answer.found:
                    results[n].CopyFrom(answer)
                else:
                    results[n].not_asked.extend(answer.not_asked)
        return silent

    def _ways(self, asked: Iterable[str]) -> list[Neighbour]:
        """Who may know of what no copy has: parents, and who leads on to others."""
        onward = [f for f in self._followed if f.leads_on and f.is_current]
        return [n for n in (*self._asked, *onward) if n.name not in asked]

    async def describe(self, tree: bool, asked: Sequence[str]) -> federation_pb2.Domain:
        """This domain, and within it those that it knows."""
        table = self._ledger.table
        domain = federation_pb2.Domain(
            name=self.own,
            relation=federation_pb2.RELATION_SELF,
            state=federation_pb2.DOMAIN_STATE_CURRENT,
            revision=table.revision,
            vms=table.count(indexes.VMS),
            servers=table.count(indexes.SERVERS),
        )
        known = [*asked, self.own]
        others = [n for n in self.neighbours if n.name not in asked]
        within = await asyncio.gather(*(self._within(n, known) for n in others if tree))
        for number, neighbour in enumerate(others):
            listed = domain.domains.add()
            listed.CopyFrom(neighbour.to_wire())
            listed.domains.extend(within[number] if tree else ())
        return domain

    async def _within(
        self, neighbour: Neighbour, known: Sequence[str]
    ) -> Sequence[federation_pb2.Domain]:
        try:
            return (await neighbour.domains(True, known)).domain.domains
        except grpc.aio.AioRpcError:
            return ()  # that it is silent is said of it already, or will be

    def _held(self) -> Iterable[Held]:
        yield Held(self.own, self._ledger.table)
        for followed in self._followed:
            yield Held(followed.name, followed.copy.newest)


def _deny(result: pb.LookupResult, not_asked: set[str]) -> None:
    """Nobody has it, as far as is known: for other domains no vCenter says that with authority."""
    silent = sorted({*result.not_asked, *not_asked})
    del result.not_asked[:]
    result.not_asked.extend(silent)
    result.certainty = pb.CERTAINTY_STALE if silent else pb.CERTAINTY_CACHED
