"""Bare grpc.aio servers, what ours are measured beside: they do nothing but answer.

`python -m deploy.bench.bare echo PORT` · `… fanout PORT MESSAGE_BYTES`
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from common.rpc import SERVER_OPTIONS

ECHO = "/bench.Echo/Echo"
STREAM = "/bench.Fanout/Attach"
FIRE = "/bench.Fanout/Fire"


async def _echo(request: bytes, context: Any) -> bytes:
    return request


class _Fanout:
    """Every stream gets the same bytes when somebody fires; each has a queue, as it must."""

    def __init__(self, size: int) -> None:
        self._padding = b"x" * max(0, size - 8)
        self._queues: set[asyncio.Queue[bytes]] = set()

    async def attach(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield b"welcome"
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def fire(self, request: bytes, context: Any) -> bytes:
        message = time.monotonic_ns().to_bytes(8, "big") + self._padding
        for queue in self._queues:
            queue.put_nowait(message)
        return message[:8]


def _handlers(program: str, arguments: list[str]) -> dict[str, Any]:
    if program == "echo":
        return {ECHO: grpc.unary_unary_rpc_method_handler(_echo)}
    fanout = _Fanout(int(arguments[0]))
    return {
        STREAM: grpc.stream_stream_rpc_method_handler(fanout.attach),
        FIRE: grpc.unary_unary_rpc_method_handler(fanout.fire),
    }


async def _serve(program: str, port: str, arguments: list[str]) -> None:
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    by_service: dict[str, dict[str, Any]] = {}
    for path, handler in _handlers(program, arguments).items():
        _, service, method = path.split("/")
        by_service.setdefault(service, {})[method] = handler
    for service, methods in by_service.items():
        handler = grpc.method_handlers_generic_handler(service, methods)
        server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], sys.argv[3:]))
