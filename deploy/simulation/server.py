"""The server's side of gRPC in memory: the generated services and our servicers, as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from deploy.simulation.calls import OK, Call, Status
from deploy.simulation.loop import Process

_REFUSED = Status(grpc.StatusCode.UNAVAILABLE, "connection refused")
_BROKEN = Status(grpc.StatusCode.UNAVAILABLE, "socket closed")


class _Aborted(Exception):
    """What `abort` raises in the servicer."""


@dataclass(frozen=True, slots=True)
class Details:
    """`grpc.HandlerCallDetails`."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


class Context:
    """As much of `grpc.aio.ServicerContext` as the servicers use."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.status = OK

    def peer(self) -> str:
        return "unix:/vcenter"

    def auth_context(self) -> dict[str, list[bytes]]:
        """There are no certificates here."""
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._call.metadata

    def time_remaining(self) -> float | None:
        """Seconds; None: the caller waits for as long as it takes."""
        deadline = self._call.deadline
        return None if deadline is None else max(0.0, deadline - self._call.network.kernel.now())

    async def abort(self, code: grpc.StatusCode, details: str = "", trailers: Any = ()) -> NoReturn:
        self.status = Status(code, details, tuple(trailers or ()))
        raise _Aborted

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)


class Server:
    """`grpc.aio.Server` for one process. `mouth` is told what it says: method and message."""

    def __init__(
        self,
        process: Process,
        servers: Servers,
        mouth: Callable[[str, bytes], None],
        defect: Callable[[str], None],
    ) -> None:
        self.process = process
        self._handlers: tuple[Any, ...] = ()
        self._servers = servers
        self._mouth = mouth
        self._defect = defect
        self._address = ""
        self._calls: dict[Call, None] = {}
        process.mourners.append(self._died)

    # ---- what WireServer does with it ----

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self._handlers += tuple(handlers)

    def add_insecure_port(self, address: str) -> int:
        self._address = address
        return 1

    async def start(self) -> None:
        self._servers.listen(self._address, self)

    async def stop(self, grace: float) -> None:
        self._servers.unlisten(self._address, self)
        serving = [call.serving for call in self._calls if call.serving is not None]
        if serving:
            await asyncio.wait(serving, timeout=grace)
        for call in list(self._calls):
            call.close(_BROKEN)
            call.reset()
            if call.serving is not None:
                call.serving.cancel()

    # ---- calls ----

    def accept(self, call: Call) -> None:
        details = Details(call.method, call.metadata)
        handler = next((h for g in self._handlers if (h := g.service(details))), None)
        if handler is None:
            call.close(Status(grpc.StatusCode.UNIMPLEMENTED, call.method))
            return
        self._calls[call] = None
        call.serving = self.process.spawn(self._serve(handler, call))
        call.serving.add_done_callback(lambda _: self._calls.pop(call, None))

    async def _serve(self, handler: Any, call: Call) -> None:
        context = Context(call)
        try:
            await self._handle(handler, call, context)
            call.close(OK)
        except _Aborted:
            if context.status.code is grpc.StatusCode.INTERNAL:
                self._defect(f"{call.method} failed; the log has the details")
            call.close(context.status)
        except asyncio.CancelledError:
            call.close(Status(grpc.StatusCode.CANCELLED, "by the server"))
            raise
        except Exception as error:  # noqa: BLE001 - what gRPC does with it
            self._defect(f"{call.method} raised {error!r}")
            call.close(Status(grpc.StatusCode.UNKNOWN, repr(error)))

    async def _handle(self, handler: Any, call: Call, context: Context) -> None:
        request: Any = self._requests(handler, call)
        if not handler.request_streaming:
            request = await anext(request, None)
            if request is None:
                return
        if not handler.response_streaming:
            act = handler.stream_unary if handler.request_streaming else handler.unary_unary
            await self._reply(handler, call, await act(request, context))
            return
        act = handler.stream_stream if handler.request_streaming else handler.unary_stream
        async for reply in act(request, context):
            await self._reply(handler, call, reply)

    async def _requests(self, handler: Any, call: Call) -> Any:
        while (message := await call.requests.next()) is not None:
            read = handler.request_deserializer
            yield read(message) if read is not None else message

    async def _reply(self, handler: Any, call: Call, reply: Any) -> None:
        serialize = handler.response_serializer
        message = serialize(reply) if serialize is not None else reply
        self._mouth(call.method, message)
        await call.reply(message)

    def _died(self) -> None:
        """The kernel closes its sockets."""
        self._servers.unlisten(self._address, self)
        for call in self._calls:
            call.close(_BROKEN)


class Servers:
    """Who listens where."""

    def __init__(self) -> None:
        self._listening: dict[str, Server] = {}

    def listen(self, address: str, server: Server) -> None:
        self._listening[address] = server

    def unlisten(self, address: str, server: Server) -> None:
        if self._listening.get(address) is server:
            del self._listening[address]

    def accept(self, call: Call) -> None:
        """A call's first word has arrived."""
        server = self._listening.get(call.ends[1])
        if server is None or not server.process.alive:
            call.close(_REFUSED)
        else:
            server.accept(call)
