"""Attach: the agent's one long stream. Wanted state down; reports, answers and outcomes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from common.codec.checker import Checker
from common.codec.enums import HOSTED_STATE
from common.codec.operation import from_outcome, from_progress
from common.codec.server import from_server
from common.codec.silence import from_silence, to_listen
from common.codec.times import to_duration
from common.codec.wanted import from_held, to_wanted_vm
from common.errors import Refusal, Violation, invalid
from common.model.caller import Caller
from common.model.operation import HostedState
from common.model.silence import Listen
from common.model.wanted import WantedVm
from common.pb.vsignal.v1 import session_pb2 as pb
from vcenter.agents.session import Ask, Down, Gone, Session
from vcenter.audit import origin
from vcenter.core import blackout
from vcenter.core.heard import Heard
from vcenter.wire.context import Parts, Servicer
from vcenter.wire.guard import streaming
from vcenter.wire.methods import Methods
from vcenter.wire.rules import own_server
from vcenter.wire.signaling import SignalingService

log = structlog.get_logger()


class SessionService(Servicer):
    """What hosts share leaves as bytes, which the generated service cannot send."""

    service = "Session"

    def __init__(self, parts: Parts, signaling: SignalingService) -> None:
        super().__init__(parts)
        self._signaling = signaling

    def add_to(self, methods: Methods) -> None:
        attach: Any = grpc.stream_stream_rpc_method_handler(
            self.Attach, pb.AgentMessage.FromString, _encoded
        )
        methods.add_registered_method_handlers("vsignal.v1.Session", {"Attach": attach})

    @streaming
    async def Attach(
        self, requests: AsyncIterator[pb.AgentMessage], caller: Caller
    ) -> AsyncIterator[pb.CenterMessage | bytes]:
        hello = await anext(requests, None)
        if hello is None or hello.WhichOneof("message") != "hello":
            raise invalid([Violation("message", "the first message is a hello")])
        session = await self._admit(hello.hello, caller)
        listening = asyncio.create_task(self._listen(session, requests))
        listening.add_done_callback(lambda _: session.close())
        try:
            yield self._welcome()
            async for message in session.outgoing():
                yield to_wire(message)
        finally:
            self.parts.sessions.detach(session)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _admit(self, hello: pb.Hello, caller: Caller) -> Session:
        own_server(caller, hello.server.server_id)
        check = Checker()
        server = from_server(check, hello.server)
        check.done()
        return await self.parts.sessions.attach(server, from_held(hello))

    def _welcome(self) -> pb.CenterMessage:
        parts = self.parts
        return pb.CenterMessage(
            welcome=pb.Welcome(
                lease=to_duration(parts.sessions.lease),
                domain=parts.domain,
                revision=self.table.revision,
                resumes=True,
            )
        )

    async def _listen(self, session: Session, requests: AsyncIterator[pb.AgentMessage]) -> None:
        """Ends with the stream. What one message gets wrong does not end the session."""
        async for message in requests:
            self.parts.sessions.renew(session.server_id)
            try:
                await self._heard(session, message)
            except Refusal as refusal:
                self.audit.refused(message, "Attach", refusal, origin.get())
                log.warning(
                    "message refused",
                    server=session.server_id,
                    kind=message.WhichOneof("message"),
                    reason=refusal.reason.name,
                    text=refusal.message,
                )

    async def _heard(self, session: Session, message: pb.AgentMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "report":
            await self._signaling.take_report(session.server_id, message.report)
        elif kind == "answer":
            answer = message.answer
            state = HOSTED_STATE.read(Checker(), "state", answer.state, HostedState.UNKNOWN)
            session.answered(answer.ask_id, answer.vm_id, state)
        elif kind == "outcome":
            await self._outcome(session, message.outcome)
        elif kind == "progress":
            self._progress(session, message.progress)
        elif kind == "resync":
            log.warning("a network is told again", server=session.server_id, vni=message.resync.vni)
            session.resync(message.resync.vni)
        elif kind == "silence":
            await self._silence(session, message.silence)
        else:
            raise invalid([Violation("message", f"not expected here: {kind}")])

    async def _outcome(self, session: Session, wire: pb.MoveOutcome) -> None:
        check = Checker()
        outcome = from_outcome(check, wire)
        check.done()
        log.info(
            "outcome",
            operation_id=outcome.operation_id,
            server=session.server_id,
            step=outcome.step,
            ok=outcome.ok,
            truth=outcome.truth,
            why=outcome.failure.message if outcome.failure else None,
        )
        self.parts.receiver.heard(session.server_id, outcome)
        await self.ledger.submit(Heard(session.server_id, outcome))

    async def _silence(self, session: Session, wire: pb.Silence) -> None:
        check = Checker()
        silence = from_silence(check, wire)
        check.done()
        log.info(
            "blackout",
            operation_id=silence.operation_id,
            server=session.server_id,
            longest_ms=silence.longest_ms,
            why=silence.why or None,
        )
        await self.ledger.submit(blackout.Heard(session.server_id, silence))

    def _progress(self, session: Session, wire: pb.MoveProgress) -> None:
        """Only the source knows how far its copy is."""
        operation = self.table.operation(wire.operation_id)
        if operation is not None and operation.source == session.server_id:
            self.parts.board.report(wire.operation_id, from_progress(wire.progress))


def to_wire(message: Down) -> pb.CenterMessage | bytes:
    if isinstance(message, bytes):
        return message
    if isinstance(message, WantedVm):
        return pb.CenterMessage(vm=to_wanted_vm(message))
    if isinstance(message, Ask):
        return pb.CenterMessage(ask=pb.Ask(ask_id=message.ask_id, vm_id=message.vm_id))
    if isinstance(message, Listen):
        return pb.CenterMessage(listen=to_listen(message))
    if isinstance(message, Gone):
        if isinstance(message.item, str):
            return pb.CenterMessage(vm_gone=message.item)
        return pb.CenterMessage(network_gone=message.item)
    return pb.CenterMessage(synced=pb.Synced(revision=message.revision))


def _encoded(message: pb.CenterMessage | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
