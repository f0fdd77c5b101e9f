"""Calls of any method that the contract describes, by name: for tests that take all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from common.rpc import ASKED_KEY, CALLER_KEY, Metadata, identity
from tests.support.lab import Lab
from vcenter.wire.server import SERVICES


def methods() -> dict[str, MethodDescriptor]:
    """By `Service/Method`."""
    pool = descriptor_pool.Default()
    found = [m for name in SERVICES for m in pool.FindServiceByName(name).methods]
    return {f"{m.containing_service.name}/{m.name}": m for m in found}


METHODS = methods()


def request_of(method: str) -> type[Message]:
    return GetMessageClass(METHODS[method].input_type)


async def replies(
    lab: Lab, caller: str, method: str, said: Iterable[Message], most: int = 1
) -> list[Any]:
    """The first replies, at most so many; the call is cancelled then. A `grpc.RpcError` is raised
    as it comes. `caller` "" sends no identity."""
    if METHODS[method].client_streaming:
        return await asyncio.to_thread(_talk, lab.blocking, caller, method, list(said), most)
    (request,) = said
    call = _callable(lab.channel, method)(request, metadata=who(caller), timeout=20)
    try:
        if not METHODS[method].server_streaming:
            return [await call]
        found: list[Any] = []
        while len(found) < most and (reply := await call.read()) is not grpc.aio.EOF:
            found.append(reply)
        return found
    finally:
        call.cancel()


def _talk(
    channel: grpc.Channel, caller: str, method: str, said: list[Message], most: int
) -> list[Any]:
    """By the client that blocks: a call that the server ends while grpc.aio writes into it is told
    as an error of gRPC's own, which hides how it ended."""
    call = _callable(channel, method)(iter(said), metadata=who(caller), timeout=20)
    if not METHODS[method].server_streaming:
        return [call]
    try:
        return list(islice(call, most))
    finally:
        call.cancel()


def who(caller: str) -> Metadata | None:
    """`CALLER via DOMAIN`: on whose behalf that domain's vCenter calls."""
    name, via, neighbour = caller.partition(" via ")
    if not via:
        return identity(caller) if caller else None
    said = ((CALLER_KEY, name), (ASKED_KEY, neighbour))
    return (*identity(f"domain/{neighbour}"), *said)


def _callable(channel: Any, method: str) -> Any:
    described = METHODS[method]
    kind = "_".join(
        "stream" if streams else "unary"
        for streams in (described.client_streaming, described.server_streaming)
    )
    return getattr(channel, kind)(
        f"/{described.containing_service.full_name}/{described.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )
