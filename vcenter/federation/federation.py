"""All other vCenters that this one knows: questions that its own ledger cannot answer go here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

import grpc.aio

from common.clock import Clock
from common.codec.vm import plain_key
from common.model.vm import VmKey, VmRecord
from common.pb.vsignal.v1 import federation_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core import indexes
from vcenter.core.duplicate import Held
from vcenter.core.table import Table
from vcenter.federation.asked import Asked
from vcenter.federation.duplicates import Duplicates
from vcenter.federation.followed import Followed, Heard
from vcenter.federation.forwarding import clear_abroad, forwarded
from vcenter.federation.index import Index
from vcenter.federation.neighbour import Dial, Neighbour
from vcenter.federation.settings import DomainSettings
from vcenter.federation.twins import Twins
from vcenter.federation.warnings import Warnings
from vcenter.federation.word import Word
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
        self._twins = Twins(ledger, self._words, clock)
        self._duplicates = Duplicates(
            own, ledger, self._may_have, self._words, self._twins.suspect, clock
        )
        self._index: Index[Followed] = Index()
        self._followed = [
            Followed(d, dial, own, clock, chance, self._duplicates.seen, self._changed, self._index)
            for d in domains
            if d.relation != "parent"
        ]
        self._asked = [
            Asked(d, dial, own, clock, chance) for d in domains if d.relation == "parent"
        ]
        self.neighbours: Sequence[Neighbour] = (*self._asked, *self._followed)
        judges = [parent for parent in self._asked if parent.freezes]
        self.warnings = Warnings(own, ledger, judges, clock)
        self._listeners: list[Callable[[], None]] = []
        if self._followed:
            self._duplicates.listen()
            self.listen(self._twins.look_again)
            self.listen(self._duplicates.look_again)

    def listen(self, listener: Callable[[], None]) -> None:
        """It is called whenever a copy may have changed."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

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
                tasks.create_task(self._twins.run())
                tasks.create_task(self.warnings.run())
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
        hearsay: dict[int, pb.LookupResult] = {}
        for n in missing:
            best = self._heard(plain_key(request.keys[n]), caller)
            if best is None:
                continue
            (result,) = pb.LookupResponse.FromString(best.encoded()).results
            if best.is_its_own:
                response.results[n].CopyFrom(result)
            else:
                hearsay[n] = result
        left = [n for n in missing if not response.results[n].found]
        if not left:
            return
        not_asked = {f.name for f in self._followed if not f.is_current}
        if not caller.confined:
            not_asked |= await self._ask(request, response, left)
        else:
            not_asked |= {way.name for way in self._ways(request.asked)}
        for n in left:
            if response.results[n].found:
                continue
            key = plain_key(request.keys[n])
            last = hearsay.get(n) or forwarded(self._ledger.table, key, caller)
            if last is not None:
                response.results[n].CopyFrom(last)
            else:
                _deny(response.results[n], not_asked)

    def kept(self, key: VmKey, caller: Caller) -> bytes | None:
        """What is kept of a VM by its own domain's word: a LookupResponse of one result. None:
        nothing, and it is for `complete` to find out more."""
        best = self._heard(key, caller)
        return best.encoded() if best is not None and best.is_its_own else None

    def _heard(self, key: VmKey, caller: Caller) -> Heard | None:
        """The best word that is kept. Nobody tells us what is ours. Who is confined is answered
        from all copies, whoever has it: how long it takes says nothing of others' VMs."""
        vnis = (key.claim.vni,) if key.claim is not None else ()
        asked = self._followed if caller.confined else self._index.who(key.vm_id, vnis)
        heard = [h for f in asked if (h := f.find(key, caller)) and h.authority != self.own]
        if len(heard) < 2:
            return heard[0] if heard else None
        return max(heard, key=lambda one: one.weight)

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
                if answer.found and answer.authority != self.own:
                    results[n].CopyFrom(answer)
                else:
                    results[n].not_asked.extend(answer.not_asked)
        return silent

    def _ways(self, asked: Iterable[str]) -> list[Neighbour]:
        """Who may know of what no copy has: parents, who leads on to others, and who tells nothing
        unasked."""
        onward = [f for f in self._followed if (f.leads_on or f.only_asked) and f.is_current]
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

    def _words(self) -> Iterable[Word]:
        yield Word(Held(self.own, self._ledger.table))
        for one in self._followed:
            is_whole = one.copy.is_whole
            yield Word(one.copy.held, is_whole, is_whole and one.is_current, one.freezes)

    def _may_have(self, record: VmRecord) -> Iterable[Held]:
        """Who may have the VM, or one of its addresses; ourselves in any case."""
        yield Held(self.own, self._ledger.table)
        for followed in self._index.who(record.vm.vm_id, record.vm.vnis()):
            yield followed.copy.held


def _deny(result: pb.LookupResult, not_asked: set[str]) -> None:
    """Nobody has it, as far as is known: for other domains no vCenter says that with authority."""
    silent = sorted({*result.not_asked, *not_asked})
    del result.not_asked[:]
    result.not_asked.extend(silent)
    result.certainty = pb.CERTAINTY_STALE if silent else pb.CERTAINTY_CACHED
