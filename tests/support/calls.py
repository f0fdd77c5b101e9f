"""A client of the contract: its stubs, with the caller's identity on every call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any

import grpc
import pytest

from common.errors import Refusal
from common.pb.vsignal.v1 import (
    directory_pb2_grpc,
    federation_pb2_grpc,
    inventory_pb2_grpc,
    operations_pb2_grpc,
    session_pb2_grpc,
    signaling_pb2_grpc,
)
from common.rpc import identity
from common.status import refusal_from_call

TIMEOUT_S = 20.0  # no call of a test takes longer


class Stub:
    """A generated stub whose calls carry an identity and a deadline."""

    def __init__(self, stub: Any, name: str) -> None:
        self._stub = stub
        self._metadata = identity(name)

    def __getattr__(self, method: str) -> Any:
        return partial(getattr(self._stub, method), metadata=self._metadata, timeout=TIMEOUT_S)


class Client:
    """One caller: as `common.model.caller` spells callers: `operator/NAME`, `vserver/ID` …."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self.name = name
        self.bind(channel)

    def bind(self, channel: grpc.aio.Channel) -> None:
        """Also after a restart: the same caller on a new connection."""
        self.signaling = Stub(signaling_pb2_grpc.SignalingStub(channel), self.name)
        self.session = Stub(session_pb2_grpc.SessionStub(channel), self.name)
        self.directory = Stub(directory_pb2_grpc.DirectoryStub(channel), self.name)
        self.federation = Stub(federation_pb2_grpc.FederationStub(channel), self.name)
        self.operations = Stub(operations_pb2_grpc.OperationsStub(channel), self.name)
        self.inventory = Stub(inventory_pb2_grpc.InventoryStub(channel), self.name)


async def refusal_of(call: Awaitable[Any] | AsyncIterator[Any]) -> Refusal:
    """The refusal that a call ends with; the test fails if it ends otherwise."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, AsyncIterator) or hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    refusal = refusal_from_call(caught.value)
    assert refusal is not None, f"no google.rpc.Status of ours: {caught.value!r}"
    return refusal
