"""Networks that span domains: who of our networks is in other domains, for our hosts to reach.

What we follow is read from the copies; parents are asked, who follow others. Soft state: while a
domain cannot be reached, what was known of it stays, for its hosts may run on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import grpc.aio

from common import log
from common.clock import Clock
from common.codec.checker import Checker
from common.codec.server import from_network, to_network
from common.model.identity import parse_ip, parse_mac
from common.model.place import is_abroad
from common.model.server import Server, VirtualNetwork
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.wake import Wake
from vcenter.core import indexes
from vcenter.core.roster import NOBODY, Members
from vcenter.core.table import Table
from vcenter.federation.federation import Federation
from vcenter.federation.neighbour import Neighbour
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

LOOK_EVERY = 0.05  # seconds at least between looks at what has changed
REST = 20  # times as long as a look took, so that looking takes a twentieth of a CPU at most
HELD_S = 5.0  # an answer that is nothing new waits so long for something
ANSWERED_WITHIN = HELD_S + 10.0
AGAIN_S = 1.0  # after a parent that could not be asked
MAX_NETWORKS = 1000  # in one question; of more, the first by name are asked about
MAX_FORWARDS = 30_000  # in one answer, which is some 2 MiB; the rest is flooded to the tunnel ends

_log = log.get(__name__)


class Spanning:
    """`run` it. `tell(vni, members)` hears of each network whose members elsewhere are others."""

    def __init__(
        self,
        ledger: Ledger,
        federation: Federation,
        tell: Callable[[int, Members], None],
        clock: Clock,
    ) -> None:
        self._table = ledger.table
        self._federation = federation
        self._tell = tell
        self._clock = clock
        self._said: dict[str, dict[int, Members]] = {}  # by parent
        self._told: dict[int, Members] = {}
        self._known: list[VirtualNetwork] | None = None  # our networks, until one changes
        self._wakes: dict[Wake, None] = {}
        ledger.feed.listen(self._committed, VirtualNetwork)
        ledger.feed.listen(lambda _: self._ring(), VirtualNetwork, VmRecord, Server)
        federation.listen(self._ring)

    def _committed(self, _: Committed) -> None:
        self._known = None

    def _ring(self) -> None:
        """Something may be otherwise than at the last look."""
        for wake in self._wakes:
            wake.ring()

    @contextmanager
    def _woken(self) -> Iterator[Wake]:
        wake = Wake(self._clock)
        self._wakes[wake] = None
        try:
            yield wake
        finally:
            del self._wakes[wake]

    async def run(self) -> None:
        """For ever."""
        if not self._federation.neighbours:
            return
        async with asyncio.TaskGroup() as tasks:
            for parent in self._federation.parents:
                tasks.create_task(self._ask(parent))
            with self._woken() as wake:
                await self._look(wake)

    async def _look(self, wake: Wake) -> None:
        seen: object = None
        while True:
            wake.forget()
            now, began = self._position(), self._clock.monotonic()
            if now != seen:
                seen = now
                self._update()
            await self._rest(began)
            await wake.heard()

    async def _rest(self, began: float) -> None:
        """Before the next look: the longer, the more there was to read in the last one."""
        took = self._clock.monotonic() - began
        await self._clock.sleep(max(LOOK_EVERY, REST * took))

    def _position(self) -> object:
        """Changes whenever something may have changed that members follow from."""
        copies = [(name, id(t), t.revision) for name, t in self._federation.copies()]
        said = [(name, id(known)) for name, known in self._said.items()]
        return copies, said, id(self._networks())

    def _networks(self) -> list[VirtualNetwork]:
        if self._known is None:
            self._known = list(self._table.all(VirtualNetwork, indexes.NETWORKS))
        return self._known

    def _update(self) -> None:
        tables = [table for _, table in self._federation.copies()]
        now: dict[int, Members] = {}
        for network in self._networks():
            for vni in network.vnis:
                known = [said[vni] for said in self._said.values() if vni in said]
                now[vni] = _joined([*known, *(_members(t, network, vni) for t in tables)])
        for vni in self._told.keys() | now.keys():
            members = now.get(vni, NOBODY)
            if members != self._told.get(vni, NOBODY):
                self._tell(vni, members)
        self._told = now

    # ---- parents ----

    async def _ask(self, parent: Neighbour) -> None:
        heard = 0
        asked_about: list[VirtualNetwork] = []
        while True:
            networks = self._networks()[:MAX_NETWORKS]
            if networks != asked_about:
                heard, asked_about = 0, networks
            if not networks:
                await self._clock.sleep(AGAIN_S)
                continue
            names = [self._federation.own, *(name for name, _ in self._federation.copies())]
            wire = [to_network(network) for network in networks]
            request = pb.MembersRequest(networks=wire, asked=names, heard=heard)
            try:
                answer = await parent.members(request, ANSWERED_WITHIN)
            except grpc.aio.AioRpcError as error:
                _log.debug("members not told", domain=parent.name, why=str(error.code()))
                heard = 0
                await self._clock.sleep(AGAIN_S)
                continue
            if answer.mark != heard:
                self._said[parent.name] = dict(_read(answer))
                self._ring()
            heard = answer.mark

    async def answer(self, request: pb.MembersRequest) -> pb.MembersResponse:
        """Raises `Refusal`."""
        check = Checker()
        check.at_most("networks", len(request.networks), MAX_NETWORKS)
        check.at_most("asked", len(request.asked), MAX_NETWORKS)
        networks = [from_network(check, wire) for wire in request.networks[:MAX_NETWORKS]]
        check.done()
        with self._woken() as wake:
            return await self._news(networks, request, wake)

    async def _news(
        self, networks: Sequence[VirtualNetwork], request: pb.MembersRequest, wake: Wake
    ) -> pb.MembersResponse:
        """An answer that the caller has not heard; the same once more, if there is none in time."""
        ends = self._clock.monotonic() + HELD_S
        while True:
            wake.forget()
            seen, began = self._position_for(request.asked), self._clock.monotonic()
            answer = self._answer(networks, request.asked)
            if answer.mark != request.heard:
                return answer
            await self._rest(began)
            while self._position_for(request.asked) == seen:
                left = ends - self._clock.monotonic()
                if left <= 0:
                    return answer
                await wake.heard(left)

    def _position_for(self, asked: Iterable[str]) -> object:
        return [(id(table), table.revision) for table in self._tables(asked)]

    def _tables(self, asked: Iterable[str]) -> list[Table]:
        """Of us and of those whom we follow, without those whom the caller knows."""
        known = set(asked)
        own = [] if self._federation.own in known else [self._table]
        return [*own, *(t for name, t in self._federation.copies() if name not in known)]

    def _answer(
        self, networks: Iterable[VirtualNetwork], asked: Iterable[str]
    ) -> pb.MembersResponse:
        answer, room = pb.MembersResponse(), MAX_FORWARDS
        tables = self._tables(asked)
        for network in networks:
            for vni in network.vnis:
                members = _joined(_members(table, network, vni) for table in tables)
                if not members.ends:
                    continue
                told = answer.networks.add(vni=vni, network=network.network_id)
                told.vtep_addresses.extend(sorted(members.ends))
                for mac, vtep in sorted(members.forwards.items())[:room]:
                    told.forwards.add(mac=mac, vtep_address=vtep)
                room -= len(told.forwards)
        said = answer.SerializeToString(deterministic=True)
        answer.mark = int.from_bytes(blake2b(said, digest_size=8).digest(), "big")
        return answer


def _members(table: Table, network: VirtualNetwork, vni: int) -> Members:
    """Of one domain. What is there for its move's sake only, its own domain tells of."""
    forwards = {}
    for mac, server_id in table.vms.members(vni, network.tenant, network.network_id):
        server = table.server(server_id) if not is_abroad(server_id) else None
        if server is not None and server.vtep_address:
            forwards[mac] = server.vtep_address
    return Members(forwards, frozenset(forwards.values()))


def _joined(several: Iterable[Members]) -> Members:
    forwards: dict[str, str] = {}
    ends: set[str] = set()
    for members in several:
        forwards |= members.forwards
        ends |= members.ends
    return Members(forwards, frozenset(ends)) if ends else NOBODY


def _read(answer: pb.MembersResponse) -> Iterator[tuple[int, Members]]:
    """What is no address is left out."""
    check = Checker()
    for network in answer.networks:
        forwards = {
            check.parse("mac", parse_mac, f.mac, ""): check.parse(
                "vtep", parse_ip, f.vtep_address, ""
            )
            for f in network.forwards
        }
        ends = {check.parse("vtep", parse_ip, end, "") for end in network.vtep_addresses}
        good = {mac: vtep for mac, vtep in forwards.items() if mac and vtep}
        yield network.vni, Members(good, frozenset(ends - {""}))
