"""For every method, messages that nobody means: no crash, no INTERNAL, no change on a refusal.

500 a method here; `scripts/fuzz` takes 20,000. The methods are those of the descriptors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.model.caller import parse_caller
from common.model.operation import Operation
from common.model.server import Liveness, Server
from common.pb.vsignal.v1 import session_pb2
from common.status import refusal_from_call
from tests.support.agent import Agent
from tests.support.described import METHODS, replies, who
from tests.support.generated import messages
from tests.support.lab import Lab, running_lab
from tests.support.nouns import vm
from vcenter.core.table import Applied
from vcenter.wire.rules import BETWEEN, RULES

EXAMPLES = int(os.environ.get("VSIGNAL_FUZZ_EXAMPLES", "500"))
CALLERS = ("vserver/host-1", "operator/ada", "tenant/blue", "watcher/w/network/red-net")
VOUCHED = ("operator/ada/admin via center", "tenant/blue via center")
MAY = {m: [c for c in CALLERS if parse_caller(c).role in roles] for m, roles in RULES.items()}
MAY |= {m: list(VOUCHED) for m in BETWEEN}
MAY |= {m: ["domain/center"] for m in ("Federation/Members", "Federation/Twins")}
CENTER = {"name": "center", "relation": "child", "address": "unix:nowhere", "vouches": "admin"}
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class World:
    """A ledger with two VMs, on an event loop that runs while something is asked of it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._running = asynccontextmanager(_world)()
        self.lab, self.agent = self._runner.run(self._running.__aenter__())

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def close(self) -> None:
        self._runner.run(self._running.__aexit__(None, None, None))
        self._runner.close()

    def changed_since(self, revision: int) -> set[str]:
        """Kinds of the records that were changed by somebody's call."""
        committed = self.lab.center.ledger.feed.since(revision) or []
        called = [each.changes for each in committed if not any(map(_is_time, each.changes))]
        return {change.key.partition("/")[0] for changes in called for change in changes}


def _is_time(change: Applied) -> bool:
    """What passes by itself: a lease has lapsed, or a move that was ordered before goes its way."""
    lapses = isinstance(change.after, Server) and change.after.liveness is Liveness.SILENT
    return lapses or (isinstance(change.after, Operation) and change.before is not None)


async def _world() -> Any:
    async with running_lab(domains=(CENTER,)) as lab:
        await lab.group()
        agent = await lab.agent("host-1")
        await agent.register(vm(1))
        await (await lab.agent("host-2")).register(vm(2, "red"))
        yield lab, agent


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


async def _is_refused(lab: Lab, caller: str, method: str, said: Iterable[Message]) -> bool:
    """Fails for an error that is not a refusal of ours, with a reason and a plain status."""
    try:
        await replies(lab, caller, method, said)
    except grpc.RpcError as error:
        assert error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), error
        assert refusal_from_call(error) is not None, error
        return True
    return False


@pytest.mark.parametrize("method", METHODS)
def test_no_message_breaks_a_method_or_changes_what_it_may_not(world: World, method: str) -> None:
    described = METHODS[method]
    one = messages(described.input_type)
    said_ = st.lists(one, min_size=1, max_size=3) if described.client_streaming else st.tuples(one)

    @MANY
    @given(said=said_, caller=st.sampled_from(MAY[method]))
    def ask(said: Sequence[Message], caller: str) -> None:
        before = world.lab.revision
        refused = world.run(_is_refused(world.lab, caller, method, said))
        if refused and not described.client_streaming:
            assert world.changed_since(before) <= {"alert"}

    ask()


def test_no_message_ends_a_session(world: World) -> None:
    agent: Agent = world.agent

    @MANY
    @given(messages(session_pb2.AgentMessage.DESCRIPTOR))
    def say(message: Message) -> None:
        async def said() -> None:
            await agent._stream.write(message)
            await world.lab.heard(agent)

        world.run(said())
        assert agent.attached

    say()


def test_bytes_that_are_no_message_are_refused(world: World) -> None:
    """A field that says it is longer than what follows."""
    for method in METHODS:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            world.run(_say_nonsense(world.lab, method))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method
        assert refusal_from_call(caught.value) is not None


async def _say_nonsense(lab: Lab, method: str) -> None:
    described = METHODS[method]
    streams = (
        "stream" if s else "unary" for s in (described.client_streaming, described.server_streaming)
    )
    make: Callable[..., Any] = getattr(lab.channel, "_".join(streams))
    path = f"/{described.containing_service.full_name}/{described.name}"

    nonsense, metadata = b"\x0a\xff\x01x", who(MAY[method][0])
    if described.client_streaming:
        call = make(path)(metadata=metadata, timeout=10)
        await call.write(nonsense)
        await call.read()
    elif described.server_streaming:
        await make(path)(nonsense, metadata=metadata, timeout=10).read()
    else:
        await make(path)(nonsense, metadata=metadata, timeout=10)
