"""The source's side of moves between domains: plan them at the other vCenter, and carry to it what
becomes of them, until both sides know how each has ended.

One task for each move that has had its turn. What to say follows from the ledger, so that it is
said again after a restart, and saying it twice is harmless. A call that is not answered proves
nothing: it is made again, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence

import grpc.aio

from common import log
from common.clock import Clock
from common.codec.checker import Checker
from common.codec.enums import HOSTED_STATE
from common.codec.operation import from_outcome, to_operation
from common.codec.server import from_server
from common.errors import Refusal
from common.model.caller import Caller
from common.model.operation import HostedState, Operation
from common.model.place import domain_of, translated
from common.model.server import Server
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import federation_pb2_grpc
from common.wake import Wake
from vcenter.core import indexes
from vcenter.core.abroad import Abroad, Planned, as_known
from vcenter.core.handover import Answered
from vcenter.federation.guests import from_move, from_objection, to_guest
from vcenter.federation.homes import Homes
from vcenter.federation.neighbour import Neighbour, answer_to
from vcenter.federation.receiving import HELD_S
from vcenter.federation.relay import on_behalf, refused_by
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

PLANNED_WITHIN, ANSWERED_WITHIN = 10.0, HELD_S + 10.0  # seconds
FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0  # seconds between calls that fail

_log = log.get(__name__)


class Carrier:
    """`run` it. `own` is this domain's name."""

    def __init__(
        self, own: str, ledger: Ledger, homes: Homes, clock: Clock, chance: random.Random
    ) -> None:
        self._own = own
        self._ledger = ledger
        self._homes = homes
        self._clock = clock
        self._chance = chance
        self._ways: dict[str, Neighbour] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._wakes: dict[str, Wake] = {}
        ledger.feed.listen(self._committed, Operation)

    async def plan(self, records: Sequence[VmRecord], destination: str, caller: Caller) -> Abroad:
        """May they go to DOMAIN/SERVER, or to any host of DOMAIN/? Raises `Refusal`."""
        domain, table = domain_of(destination), self._ledger.table
        request = pb.PlanArrivalsRequest(
            guests=[to_guest(table, record) for record in records], destination=destination
        )
        stub, metadata = await self._stub(domain, caller.path)
        try:
            call = stub.PlanArrivals(request, metadata=metadata, timeout=PLANNED_WITHIN)
            answer = await answer_to(call)
        except grpc.aio.AioRpcError as error:
            raise refused_by(domain, error) from error
        planned = {one.vm_id: self._from_planned(one, domain) for one in answer.arrivals}
        return Abroad(planned, caller.path)

    def _from_planned(self, wire: pb.PlannedArrival, domain: str) -> Planned:
        objections = tuple(from_objection(o, domain, self._own) for o in wire.objections)
        server: Server | None = None
        if wire.HasField("destination"):
            check = Checker()
            read = from_server(check, wire.destination)
            check.done()
            server = as_known(read, translated(read.server_id, domain, self._own))
        return Planned(server, objections, tuple(wire.creates))

    async def ask(self, move: Operation, caller: Caller) -> HostedState:
        """What the destination's host says itself of the VM. UNKNOWN: nobody answers."""
        request = self._request(move)
        request.ask = True
        try:
            stub, metadata = await self._stub(domain_of(move.destination), caller.path)
            call = stub.Carry(request, metadata=metadata, timeout=PLANNED_WITHIN)
            answer = await answer_to(call)
        except (Refusal, grpc.aio.AioRpcError) as error:
            _log.warning("not asked", operation_id=move.operation_id, why=str(error))
            return HostedState.UNKNOWN
        return HOSTED_STATE.read(Checker(), "asked", answer.asked, HostedState.UNKNOWN)

    def _request(self, move: Operation) -> pb.CarryRequest:
        """With the VM, for as long as it is this move's: afterwards it may be somewhere else."""
        table = self._ledger.table
        request, record = pb.CarryRequest(move=to_operation(move)), table.vm(move.vm_id)
        if record is not None and record.operation_id == move.operation_id and not move.epoch_after:
            request.guest.CopyFrom(to_guest(table, record))
        return request

    # ---- those that are under way ----

    async def run(self) -> None:
        """For ever; cancelling it cancels the calls."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for move in list(self._ledger.table.all(Operation, indexes.CARRIED)):
                self._begin(tasks, move.operation_id)
            await asyncio.Event().wait()

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            after = change.after
            if not isinstance(after, Operation) or self._tasks is None:
                continue
            wake = self._wakes.get(after.operation_id)
            if wake is not None:
                wake.ring()
            elif indexes.CARRIED in indexes.tags(after):
                self._begin(self._tasks, after.operation_id)

    def _begin(self, tasks: asyncio.TaskGroup, operation_id: str) -> None:
        self._wakes[operation_id] = Wake(self._clock)
        tasks.create_task(self._carry(operation_id))

    async def _carry(self, operation_id: str) -> None:
        wake, pause, heard = self._wakes[operation_id], FIRST_PAUSE, 0
        try:
            while (move := self._carried(operation_id)) is not None:
                wake.forget()
                try:
                    answer = await self._unless(wake, self._tell(move, heard))
                    if answer is None:
                        continue  # there is something newer to say
                    await self._ledger.submit(self._read(move, answer))
                    heard, pause = answer.mark, FIRST_PAUSE
                except Refusal as refusal:
                    self._ways.pop(domain_of(move.destination), None)
                    _log.warning("told nobody", operation_id=operation_id, why=refusal.message)
                    heard = 0
                    await wake.heard(pause * self._chance.uniform(0.5, 1.0))
                    pause = min(pause * 2, LAST_PAUSE)
        finally:
            del self._wakes[operation_id]

    def _carried(self, operation_id: str) -> Operation | None:
        move = self._ledger.table.operation(operation_id)
        if move is None or indexes.CARRIED not in indexes.tags(move):
            return None
        return move

    async def _unless(
        self, wake: Wake, call: Coroutine[None, None, pb.CarryResponse]
    ) -> pb.CarryResponse | None:
        """None: our own record has changed first. Raises `Refusal`."""
        asking, ringing = asyncio.ensure_future(call), asyncio.ensure_future(wake.heard())
        try:
            await asyncio.wait({asking, ringing}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            asking.cancel()
            ringing.cancel()
            await asyncio.gather(asking, ringing, return_exceptions=True)

    async def _tell(self, move: Operation, heard: int) -> pb.CarryResponse:
        domain, request = domain_of(move.destination), self._request(move)
        request.heard = heard
        stub, metadata = await self._stub(domain, move.on_behalf)
        try:
            call = stub.Carry(request, metadata=metadata, timeout=ANSWERED_WITHIN)
            answer = await answer_to(call)
        except grpc.aio.AioRpcError as error:
            raise refused_by(domain, error) from error
        return answer

    async def _stub(
        self, domain: str, caller: str
    ) -> tuple[federation_pb2_grpc.FederationAsyncStub, tuple[tuple[str, str], ...]]:
        via = (self._own,)
        way = self._ways.get(domain)
        if way is None:
            way = self._ways[domain] = await self._homes.towards(domain, via)
        stub = federation_pb2_grpc.FederationStub(way.channel)
        return stub, on_behalf(way, domain, caller, via)

    def _read(self, move: Operation, answer: pb.CarryResponse) -> Answered:
        check, domain = Checker(), domain_of(move.destination)
        theirs = None
        if answer.HasField("move"):
            theirs = from_move(check, answer.move, domain, self._own)
        outcome = from_outcome(check, answer.outcome) if answer.HasField("outcome") else None
        check.done()
        objections = tuple(from_objection(o, domain, self._own) for o in answer.objections)
        return Answered(move.operation_id, theirs, objections, outcome, answer.silent)
