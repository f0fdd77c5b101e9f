"""Calls of any method that the contract describes, by name: for tests that take all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from common.rpc import identity
from vcenter.wire.server import SERVICES

ATTEMPTS = 10
ENDS_WITHIN_S = 0.05  # a stream whose first message is refused


def methods() -> dict[str, MethodDescriptor]:
    """By `Service/Method`."""
    pool = descriptor_pool.Default()
    found = [m for name in SERVICES for m in pool.FindServiceByName(name).methods]
    return {f"{m.containing_service.name}/{m.name}": m for m in found}


METHODS = methods()


def request_of(method: str) -> type[Message]:
    return GetMessageClass(METHODS[method].input_type)


async def replies(
    channel: grpc.aio.Channel, caller: str, method: str, said: Iterable[Message], most: int = 1
) -> list[Any]:
    """As `_replies`. A call that the server ends just while we write into it ends here with an
    error of gRPC's own, which hides how it ended: such a call is made again."""
    asked = list(said)
    for _ in range(ATTEMPTS):
        try:
            return await _replies(channel, caller, method, asked, most)
        except grpc.aio.AioRpcError as error:
            if error.details() != "Internal error from Core":
                raise
    raise AssertionError(f"{method} never ended in a way that can be seen")


async def _replies(
    channel: grpc.aio.Channel, caller: str, method: str, said: list[Message], most: int
) -> list[Any]:
    """The first replies, at most so many; the call is cancelled then. An `AioRpcError` is raised
    as it comes. `caller` "" sends no identity."""
    described = METHODS[method]
    kind = "_".join(
        "stream" if streams else "unary"
        for streams in (described.client_streaming, described.server_streaming)
    )
    make = getattr(channel, kind)(
        f"/{described.containing_service.full_name}/{described.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )
    metadata = identity(caller) if caller else None
    if described.client_streaming:
        call = make(metadata=metadata, timeout=20)
    else:
        call = make(said[0], metadata=metadata, timeout=20)
    try:
        if described.client_streaming:
            await _write(call, said)
        if not described.server_streaming:
            return [await call]
        found: list[Any] = []
        while len(found) < most and (reply := await call.read()) is not grpc.aio.EOF:
            found.append(reply)
        return found
    finally:
        call.cancel()


async def _write(call: Any, said: list[Message]) -> None:
    """Not into a call that has ended: gRPC would tell of that instead of why it has ended."""
    ended = asyncio.ensure_future(call.code())
    for number, message in enumerate(said):
        if number:
            await asyncio.wait({ended}, timeout=ENDS_WITHIN_S)
        if ended.done():
            return
        await call.write(message)
    await call.done_writing()
