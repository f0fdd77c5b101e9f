"""The destination's side of moves between domains: what other vCenters ask and tell of them.

Everything durable is in the ledger (`core/arrival`, `core/handover`). What is kept here is the last
word of each destination, which its agent says again and again while its order stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b

from common.clock import Clock
from common.codec.checker import Checker
from common.codec.enums import HOSTED_STATE
from common.codec.operation import to_operation, to_outcome
from common.codec.server import to_server
from common.errors import Reason, Refusal
from common.model.caller import Caller, Role
from common.model.operation import HostedState, MoveOutcome, Operation
from common.model.place import domain_of, is_abroad, parse_place, translated
from common.model.server import Liveness, Server
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.wake import first_of
from vcenter.core.arrival import Arrival, Guest, Received, Told, plan
from vcenter.core.heard import Heard
from vcenter.federation.guests import from_guest, from_move, to_objection
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

MAX_GUESTS = 1000
ASK_WITHIN = 2.0  # seconds for a host to answer
HELD_S = 5.0  # an answer that is nothing new waits so long for something


class Receiver:
    """`own` is this domain's name; `awaits` tells whether a vServer's lease still runs, and `ask`
    what it says of a VM, within so many seconds; `pass_on` tells other replicas of this vCenter
    what a host said."""

    def __init__(
        self,
        own: str,
        ledger: Ledger,
        clock: Clock,
        awaits: Callable[[str], bool],
        ask: Callable[[str, str, float], Awaitable[HostedState]],
        pass_on: Callable[[str, MoveOutcome], None],
    ) -> None:
        self._own = own
        self._ledger = ledger
        self._clock = clock
        self._awaits = awaits
        self._ask = ask
        self._pass_on = pass_on
        self._outcomes: dict[str, MoveOutcome] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        ledger.feed.listen(self._committed, Operation, Server)

    # ---- what our own hosts say ----

    def heard(self, server_id: str, outcome: MoveOutcome) -> None:
        """An agent's answer, on its stream to us. What is of another domain's move is told with our
        next answer, whoever of several replicas gives that."""
        if self.heard_elsewhere(server_id, outcome):
            self._pass_on(server_id, outcome)

    def heard_elsewhere(self, server_id: str, outcome: MoveOutcome) -> bool:
        """The same, on its stream to another replica. Whether it is of another domain's move."""
        move = self._ledger.table.operation(outcome.operation_id)
        if move is None or not is_abroad(move.source):
            return False
        if Heard(server_id, outcome).is_asked(move):
            self._outcomes[move.operation_id] = outcome
            self._wake(move.operation_id)
        return True

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            after = change.after
            if isinstance(after, Operation):
                if after.phase.final:
                    self._outcomes.pop(after.operation_id, None)
                self._wake(after.operation_id)
            elif isinstance(after, Server) and self._waiting:
                for operation_id in self._waiting:
                    self._wake(operation_id)

    def _wake(self, operation_id: str) -> None:
        for event in self._waiting.get(operation_id, ()):
            event.set()

    @contextmanager
    def _woken(self, operation_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(operation_id, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[operation_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[operation_id]

    # ---- what other vCenters ask ----

    def plan(self, request: pb.PlanArrivalsRequest, caller: Caller) -> pb.PlanArrivalsResponse:
        """May they come, and where to? Raises `Refusal`."""
        check, teller = Checker(), _teller(caller)
        check.require(0 < len(request.guests) <= MAX_GUESTS, "guests", f"1..{MAX_GUESTS}")
        place = check.parse("destination", parse_place, request.destination, "")
        check.require(domain_of(place) == self._own, "destination", "in another domain")
        guests = []
        for n, wire in enumerate(request.guests[:MAX_GUESTS]):
            with check.at(f"guests[{n}]"):
                guests.append(from_guest(check, wire, teller, self._own))
        check.done()
        for guest in guests:
            _check_tenant(caller, guest)
        destination = translated(place, teller, self._own) if not place.endswith("/") else ""
        planned = plan(self._ledger.table, guests, destination, _may_declare(caller))
        return pb.PlanArrivalsResponse(arrivals=[self._to_planned(each) for each in planned])

    def _to_planned(self, arrival: Arrival) -> pb.PlannedArrival:
        wire = pb.PlannedArrival(
            vm_id=arrival.guest.record.vm.vm_id,
            objections=[to_objection(o) for o in arrival.objections],
            creates=[change.key.replace("/", " ", 1) for change in arrival.creates],
        )
        server = self._ledger.table.server(arrival.destination)
        if server is not None:
            wire.destination.CopyFrom(to_server(server))
        return wire

    async def carry(self, request: pb.CarryRequest, caller: Caller) -> pb.CarryResponse:
        """Take what is said of a move, and say how it stands here. Raises `Refusal`."""
        told = self._read(request, caller)
        if request.ask:
            return await self._asked(told.move)
        with self._woken(told.move.operation_id) as woken:
            answer = self._answer(await self._received(told))
            if answer.mark == request.heard:
                await first_of(woken.wait(), self._clock.sleep(HELD_S))
                now = self._ledger.table.operation(told.move.operation_id)
                answer = self._answer(Received(now)) if now is not None else answer
        return answer

    async def _asked(self, theirs: Operation) -> pb.CarryResponse:
        """What our host says of the VM that was to come to it: UNKNOWN if it was to come nowhere,
        for then nobody here knows of the move yet."""
        mine, state = self._ledger.table.operation(theirs.operation_id), HostedState.UNKNOWN
        if mine is not None and (mine.vm_id, mine.source) == (theirs.vm_id, theirs.source):
            state = await self._ask(mine.destination, mine.vm_id, ASK_WITHIN)
        return pb.CarryResponse(asked=HOSTED_STATE.to(state))

    async def _received(self, told: Told) -> Received:
        """What is nothing new is not brought before the writer."""
        seen = told.decide(self._ledger.table, self._clock.now_ms())
        done: Received = (await self._ledger.submit(told)).reply if seen.changes else seen.reply
        return done

    def _read(self, request: pb.CarryRequest, caller: Caller) -> Told:
        check, teller = Checker(), _teller(caller)
        with check.at("move"):
            move = from_move(check, request.move, teller, self._own)
        guest = None
        if request.HasField("guest"):
            with check.at("guest"):
                guest = from_guest(check, request.guest, teller, self._own)
            same = guest.record.vm.vm_id == move.vm_id
            check.require(same, "guest.vm.vm_id", "not the VM that moves")
            same = guest.source.server_id == move.source
            check.require(same or bool(move.epoch_after), "guest.source", "not the move's")
            _check_tenant(caller, guest)
        ours = domain_of(move.source) == teller and not is_abroad(move.destination)
        check.require(ours, "move", f"not one from domain {teller} to {self._own}")
        check.done()
        return Told(replace(move, requested_by=str(caller)), guest, _may_declare(caller))

    def _answer(self, received: Received) -> pb.CarryResponse:
        answer = pb.CarryResponse(objections=[to_objection(o) for o in received.objections])
        move = received.move
        if move is not None:
            answer.move.CopyFrom(to_operation(move))
            outcome = self._outcomes.get(move.operation_id)
            if outcome is not None and Heard(move.destination, outcome).is_asked(move):
                answer.outcome.CopyFrom(to_outcome(outcome))
            answer.silent = self._is_silent(move.destination)
        said = answer.SerializeToString(deterministic=True)
        answer.mark = int.from_bytes(blake2b(said, digest_size=8).digest(), "big")
        return answer

    def _is_silent(self, server_id: str) -> bool:
        """Its lease is over. After a restart of ours each has one to come back."""
        server = self._ledger.table.server(server_id)
        attached = server is not None and server.liveness is Liveness.ATTACHED
        return not attached and not self._awaits(server_id)


def _teller(caller: Caller) -> str:
    """The domain whose word it is: the one that its neighbour has seen call."""
    if not caller.via:
        raise Refusal(Reason.FORBIDDEN, f"{caller} is no vCenter")
    return caller.via[0]


def _may_declare(caller: Caller) -> bool:
    return caller.role is Role.ADMIN


def _check_tenant(caller: Caller, guest: Guest) -> None:
    tenant = guest.record.vm.tenant
    if caller.confined and caller.tenant != tenant:
        raise Refusal(Reason.FORBIDDEN, f"{caller} may move its own VMs only")
