"""One RPC between two processes, in memory: the bytes, deadlines, statuses and endings of gRPC."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from deploy.simulation.loop import Process
from deploy.simulation.network import Ends, Network, Pipe

WINDOW = 64  # messages under way before a sender waits, as flow control makes it


@dataclass(frozen=True, slots=True)
class Status:
    code: grpc.StatusCode
    details: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()


OK = Status(grpc.StatusCode.OK)
_HEADERS = object()
_HALF_CLOSED = object()
_RESET = object()


class Inbox:
    """What has arrived, for one reader; the end comes after everything that was sent before it."""

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._rang = asyncio.Event()
        self.ended = False

    def put(self, item: bytes) -> None:
        self._items.append(item)
        self._rang.set()

    def end(self) -> None:
        self.ended = True
        self._rang.set()

    async def next(self) -> bytes | None:
        """None: nothing more will come."""
        while not self._items:
            if self.ended:
                return None
            self._rang.clear()
            await self._rang.wait()
        return self._items.popleft()


class Call:
    """The state of one call, at both ends. The server's end is made when the first word arrives."""

    def __init__(
        self, network: Network, client: Process, ends: Ends, method: str, metadata: Any
    ) -> None:
        self.network = network
        self.client = client
        self.ends = ends
        self.method = method
        self.metadata: tuple[tuple[str, str], ...] = tuple(metadata or ())
        self.deadline: float | None = None  # when the caller gives up
        self.replies = Inbox()
        self.requests = Inbox()
        self.status: Status | None = None  # as the client knows it
        self.serving: asyncio.Task[None] | None = None
        self.over = False  # as the server knows it
        self._sent = b""
        self._accept: Callable[[Call], None]
        self._moved = asyncio.Event()  # upwards
        self._room = asyncio.Event()  # downwards
        self._up = Pipe(network, ends, self._at_server)
        self._down = Pipe(network, ends[::-1], self._at_client)
        network.opened(self)
        client.mourners.append(self._client_died)

    # ---- the client's end ----

    def begin(self, accept: Callable[[Call], None]) -> None:
        """The headers go ahead of everything."""
        self._accept = accept
        self._up.push(_HEADERS)

    def send(self, message: bytes) -> None:
        self._sent = message
        self._up.push(message)

    def again(self, accept: Callable[[Call], None]) -> None:
        """The same unary request once more, by a proxy that keeps it for a while; nobody waits
        for what comes of it."""
        twin = Call(self.network, self.client, self.ends, self.method, self.metadata)
        twin.finish(Status(grpc.StatusCode.CANCELLED, "a double"))
        twin.begin(accept)
        twin.send(self._sent)
        twin.send_end()

    def send_end(self) -> None:
        self._up.push(_HALF_CLOSED)

    async def room(self) -> None:
        """Return when the window lets another message go, or the call has ended."""
        while self.status is None and self._up.under_way >= WINDOW:
            self._moved.clear()
            await self._moved.wait()

    def finish(self, status: Status) -> None:
        """The first ending stands."""
        if self.status is None:
            self.status = status
            self.replies.end()
            self._moved.set()
            self._forget()

    def cancel(self, code: grpc.StatusCode = grpc.StatusCode.CANCELLED) -> None:
        if self.status is None:
            self.finish(Status(code, "by the client"))
            self._up.push(_RESET)

    def _client_died(self) -> None:
        self.cancel()

    def _at_client(self, item: Any) -> None:
        self._room.set()
        if isinstance(item, Status):
            self.finish(item)
        elif self.status is None:
            self.heard(item)
            self.replies.put(item)

    def heard(self, message: bytes) -> None:
        """The client's machine has received it. Who observes the world puts an ear here."""

    # ---- the server's end ----

    def _at_server(self, item: Any) -> None:
        self._moved.set()
        if item is _RESET:
            self.reset()
        elif item is _HEADERS:
            self._accept(self)
        elif item is _HALF_CLOSED:
            self.requests.end()
        else:
            self.requests.put(item)

    async def reply(self, message: bytes) -> None:
        self._down.push(message)
        while self._down.under_way >= WINDOW and not self.over:
            self._room.clear()
            await self._room.wait()

    def close(self, status: Status) -> None:
        """The server's last word."""
        if not self.over:
            self.over = True
            self._down.push(status)

    def reset(self) -> None:
        """The server hears that the client is gone."""
        if not self.over:
            self.over = True
            self._room.set()
            self.requests.end()
            if self.serving is not None:
                self.serving.cancel()

    def break_off(self, why: str) -> None:
        """The connection under it is gone: both ends hear of it, each by itself."""
        self._forget()
        gone = Status(grpc.StatusCode.UNAVAILABLE, why)
        self.network.kernel.after(self.network.delay(self.ends), self.finish, gone)
        self.network.kernel.after(self.network.delay(self.ends), self.reset)

    def _forget(self) -> None:
        self.network.calls.pop(self, None)
        if self._client_died in self.client.mourners:
            self.client.mourners.remove(self._client_died)


async def requests_of(call: Call, read: Any) -> Any:
    """What a servicer iterates over."""
    while (message := await call.requests.next()) is not None:
        yield read(message)
