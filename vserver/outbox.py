"""What waits to be sent up the stream.

Bounded by construction, because the latest word replaces the one before: one outcome and one
progress an operation, one report, one resync a network. Answers have a limit; a question that is
not answered is asked again. Progress goes last and may be lost, outcomes go first and are repeated
(see `moves.orders`).
"""

from __future__ import annotations

import asyncio
from collections import deque

from common.codec.enums import HOSTED_STATE
from common.codec.operation import to_outcome, to_progress
from common.codec.silence import to_silence
from common.model.operation import HostedState, MoveOutcome, Progress
from common.model.silence import Silence
from common.pb.vsignal.v1 import session_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2

MAX_ANSWERS = 1000


class Outbox:
    def __init__(self) -> None:
        self._answers: deque[pb.Answer] = deque(maxlen=MAX_ANSWERS)
        self._outcomes: dict[str, MoveOutcome] = {}
        self._progress: dict[str, Progress] = {}
        self._silences: deque[pb.Silence] = deque(maxlen=MAX_ANSWERS)
        self._report: signaling_pb2.ReportRequest | None = None
        self._resyncs: set[int] = set()
        self._filled = asyncio.Event()

    def clear(self) -> None:
        """A new stream begins: what was meant for the old one is void."""
        self._answers.clear()
        self._outcomes.clear()
        self._progress.clear()
        self._silences.clear()
        self._report = None
        self._resyncs.clear()

    def answer(self, ask_id: str, vm_id: str, state: HostedState) -> None:
        truth = HOSTED_STATE.to(state)
        self._answers.append(pb.Answer(ask_id=ask_id, vm_id=vm_id, state=truth))
        self._filled.set()

    def outcome(self, outcome: MoveOutcome) -> None:
        self._outcomes[outcome.operation_id] = outcome
        self._progress.pop(outcome.operation_id, None)
        self._filled.set()

    def progress(self, operation_id: str, progress: Progress) -> None:
        self._progress[operation_id] = progress
        self._filled.set()

    def silence(self, silence: Silence) -> None:
        self._silences.append(to_silence(silence))
        self._filled.set()

    def report(self, report: signaling_pb2.ReportRequest) -> None:
        self._report = report
        self._filled.set()

    def resync(self, vni: int) -> None:
        self._resyncs.add(vni)
        self._filled.set()

    async def next(self) -> pb.AgentMessage:
        """The most urgent message; waits for one."""
        while (message := self._take()) is None:
            self._filled.clear()
            await self._filled.wait()
        return message

    def _take(self) -> pb.AgentMessage | None:
        if self._outcomes:
            outcome = self._outcomes.pop(next(iter(self._outcomes)))
            return pb.AgentMessage(outcome=to_outcome(outcome))
        if self._answers:
            return pb.AgentMessage(answer=self._answers.popleft())
        if self._resyncs:
            return pb.AgentMessage(resync=pb.Resync(vni=self._resyncs.pop()))
        if self._silences:
            return pb.AgentMessage(silence=self._silences.popleft())
        if self._report is not None:
            report, self._report = self._report, None
            return pb.AgentMessage(report=report)
        if self._progress:
            operation_id = next(iter(self._progress))
            progress = to_progress(self._progress.pop(operation_id))
            message = pb.MoveProgress(operation_id=operation_id, progress=progress)
            return pb.AgentMessage(progress=message)
        return None
