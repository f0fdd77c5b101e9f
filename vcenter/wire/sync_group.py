"""5.3 on the wire: Begin, then chunks; each chunk is answered when it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from functools import lru_cache

from common.codec.checker import Checker
from common.codec.profile import from_profile
from common.codec.record_bytes import field
from common.errors import Reason, Refusal, Violation, invalid
from common.model.caller import Caller, Role
from common.model.identity import parse_name, parse_vm_id
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.agents.arrivals import register
from vcenter.core.enter import Enter
from vcenter.core.register import Register, Reply
from vcenter.core.sync_group import LeaveGroup, PutGroup
from vcenter.wire.context import Parts
from vcenter.wire.pipeline import pipelined
from vcenter.wire.register import outcome_to, read_register
from vcenter.wire.rules import own_server

MAX_CHUNK = 1_000
AT_A_TIME = 2  # chunks of a stream: one is decided while the other is made durable


async def serve(
    parts: Parts, requests: AsyncIterator[pb.SyncGroupRequest], caller: Caller
) -> AsyncIterator[pb.SyncGroupResponse]:
    first = await anext(requests, None)
    if first is None:
        return
    if first.WhichOneof("message") != "begin":
        raise _out_of_order()
    sync = await _begin(parts, first.begin, caller)
    async with aclosing(pipelined(requests, sync.take, AT_A_TIME)) as answers:
        done = 0
        async for results in answers:
            done += len(results)
            revision = parts.ledger.table.revision
            response = pb.SyncGroupResponse.FromString(b"".join(results))
            response.revision, response.members_done = revision, done
            yield response


def _out_of_order() -> Refusal:
    return invalid([Violation("message", "one begin first, then chunks")])


async def _begin(parts: Parts, begin: pb.SyncGroupRequest.Begin, caller: Caller) -> _Sync:
    server_id = own_server(caller, begin.server_id) if caller.role is Role.VSERVER else ""
    check = Checker()
    with check.at("begin"):
        tenant = check.parse("tenant", parse_name, begin.tenant, "")
        group = check.parse("group", parse_name, begin.group, "")
        with check.at("profile"):
            profile = from_profile(check, begin.profile) if begin.HasField("profile") else None
    check.done()
    await parts.ledger.submit(PutGroup(tenant, group, profile, keep_profile=profile is None))
    return _Sync(parts, tenant, group, server_id)


class _Sync:
    """One group's bulk registration. A refused member does not stop the others.

    Results are encoded at once, as fields of the response: there are thousands of them."""

    def __init__(self, parts: Parts, tenant: str, group: str, server_id: str) -> None:
        self._parts = parts
        self._tenant = tenant
        self._group = group
        self._server_id = server_id

    async def take(self, request: pb.SyncGroupRequest) -> list[bytes]:
        if request.WhichOneof("message") != "chunk":
            raise _out_of_order()
        chunk = request.chunk
        if len(chunk.members) > MAX_CHUNK or len(chunk.leaving) > MAX_CHUNK:
            raise Refusal(Reason.TOO_LARGE, f"at most {MAX_CHUNK} members a chunk")
        results, left = await asyncio.gather(
            self._join_all(chunk.members), asyncio.gather(*map(self._leave, chunk.leaving))
        )
        return [*results, *left]

    async def _join_all(self, members: Iterable[pb.RegisterRequest]) -> list[bytes]:
        """Submitted together. The few that arrive from elsewhere are then asked about."""
        read = [self._read(member) for member in members]
        commands = [command for command in read if not isinstance(command, bytes)]
        answers = iter(await self._parts.ledger.submit_all(commands))
        results: list[bytes | asyncio.Task[bytes]] = []
        async with asyncio.TaskGroup() as tasks:
            for command in read:
                if isinstance(command, bytes):
                    results.append(command)
                    continue
                answer = next(answers)
                if isinstance(answer, Refusal):
                    results.append(_refused(command.vm.vm_id, answer))
                elif isinstance(answer, Exception):
                    raise answer
                elif answer.reply.confirm is not None:
                    results.append(tasks.create_task(self._arrive(command)))
                else:
                    results.append(_joined(command, answer.reply))
        return [r.result() if isinstance(r, asyncio.Task) else r for r in results]

    def _read(self, member: pb.RegisterRequest) -> Register | Enter | bytes:
        vm = member.vm
        if not vm.tenant:
            vm.tenant = self._tenant
        if not vm.group:
            vm.group = self._group
        try:
            self._check(member)
            return read_register(member, self._server_id)
        except Refusal as refusal:
            return _refused(member.vm.vm_id, refusal)

    async def _arrive(self, command: Register | Enter) -> bytes:
        parts = self._parts
        try:
            reply = await register(parts.ledger, parts.sessions, parts.clock, command)
        except Refusal as refusal:
            return _refused(command.vm.vm_id, refusal)
        return _joined(command, reply)

    def _check(self, member: pb.RegisterRequest) -> None:
        if not self._server_id:
            text = "only a vServer registers VMs; an operator may take members out"
            raise Refusal(Reason.FORBIDDEN, text)
        if (member.vm.tenant, member.vm.group) != (self._tenant, self._group):
            raise invalid([Violation("vm.group", f"not {self._tenant}/{self._group}")])
        if member.server_id not in ("", self._server_id):
            raise Refusal(Reason.NOT_YOUR_SERVER, f"spoke for {member.server_id!r}")

    async def _leave(self, vm_id: str) -> bytes:
        check = Checker()
        canonical = check.parse("leaving", parse_vm_id, vm_id, "")
        try:
            check.done()
            command = LeaveGroup(self._tenant, self._group, canonical, self._server_id)
            record = (await self._parts.ledger.submit(command)).reply
        except Refusal as refusal:
            return _refused(vm_id, refusal)
        return _result(vm_id, pb.REGISTER_OUTCOME_UPDATED, record.location.epoch)


def _joined(command: Register | Enter, reply: Reply) -> bytes:
    """As the command left it: what came after it has its own answer."""
    return _result(command.vm.vm_id, outcome_to(reply), reply.epoch)


def _result(vm_id: str, outcome: pb.RegisterOutcome.ValueType, epoch: int) -> bytes:
    return field(b"\n", field(b"\n", vm_id.encode()) + _told(outcome, epoch))


@lru_cache
def _told(outcome: pb.RegisterOutcome.ValueType, epoch: int) -> bytes:
    """The same of most."""
    return pb.MemberResult(outcome=outcome, epoch=epoch).SerializeToString()


def _refused(vm_id: str, refusal: Refusal) -> bytes:
    said = pb.MemberResult(vm_id=vm_id, reason=refusal.reason.name, message=refusal.message)
    return field(b"\n", said.SerializeToString())
