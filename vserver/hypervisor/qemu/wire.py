"""How two agents talk about one copy: lines of JSON over TCP, on the migration network.

A question a line, an answer a line, in turns; closing the connection takes nothing back. The
guest's memory goes beside it, from QEMU to QEMU. `secrecy` encrypts both.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from common.errors import Reason, Refusal

SCHEME = "qmp+tcp"
LIMIT = 1 << 20  # bytes a line
CONNECT_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """`qmp+tcp://HOST:PORT#NAME`: where an agent hears of arriving guests. `name`: what its
    certificate says; without one, it speaks in clear."""

    host: str
    port: int
    name: str = ""

    @classmethod
    def parse(cls, uri: str) -> Address:
        try:
            parts = urlsplit(uri)
            if parts.scheme == SCHEME and parts.hostname and parts.port and not parts.path:
                return cls(parts.hostname, parts.port, parts.fragment)
        except ValueError:  # a port that is none
            pass
        raise Refusal(
            Reason.HYPERVISOR_FAILED, f"not a migration URI of a qemu host: {uri!r}"
            f" (write {SCHEME}://HOST:PORT)",
        )  # fmt: skip

    def memory_uri(self, port: int) -> str:
        """Where QEMU sends memory to; with port 0, where it waits for it."""
        return f"tcp:[{self.host}]:{port}" if ":" in self.host else f"tcp:{self.host}:{port}"


class Line:
    """One connection, either end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: Address, context: ssl.SSLContext | None) -> Line:
        """`context`: see `secrecy`."""
        name = address.name if context else None
        try:
            async with asyncio.timeout(CONNECT_PATIENCE):
                return cls(
                    *await asyncio.open_connection(
                        address.host, address.port, limit=LIMIT, ssl=context, server_hostname=name
                    )
                )
        except OSError as error:  # TimeoutError is one
            text = f"the agent at {address.host}:{address.port} does not answer: {error}"
            raise Refusal(Reason.HYPERVISOR_FAILED, text) from error

    async def say(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()

    async def hear(self) -> dict[str, Any] | None:
        """None at the end. ValueError if it is not what was agreed on."""
        text = await self._reader.readline()
        if not text:
            return None
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("not an object")
        return message

    async def ask(self, patience: float, **question: Any) -> dict[str, Any]:
        """TimeoutError: nobody knows what the other side has done."""
        try:
            async with asyncio.timeout(patience):
                await self.say(question)
                answer = await self.hear()
        except (OSError, ValueError) as error:
            raise TimeoutError(f"the destination's agent did not answer: {error}") from error
        if answer is None:
            raise TimeoutError("the destination's agent hung up")
        if words := answer.get("refused"):
            raise Refusal(Reason.HYPERVISOR_FAILED, f"the destination refuses: {words}")
        return answer

    def close(self) -> None:
        self._writer.close()
