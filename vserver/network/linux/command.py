"""Running nft and the like: in the right namespace, in bounded time, never blocking the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from common.errors import Reason, Refusal
from vserver.network.linux.applied import Applied


class Commands:
    """Runs programs on the host, or in a named network namespace of it."""

    def __init__(self, netns: str | None, timeout: float) -> None:
        self.netns = netns
        self._timeout = timeout
        self.applied = Applied(netns)

    async def run(self, argv: Sequence[str], stdin: str = "") -> str:
        """What the program printed. Its own words in a Refusal if it failed.

        TimeoutError means that the outcome is unknown: look before you repeat.
        """
        inside = ["ip", "netns", "exec", self.netns] if self.netns else []
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *inside, *argv, stdin=pipe, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            raise Refusal(Reason.NETWORK_FAILED, f"cannot run {argv[0]}: {error}") from error
        try:
            async with asyncio.timeout(self._timeout):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise Refusal(Reason.NETWORK_FAILED, f"{argv[0]}: {err.decode().strip()[:2000]}")
        return out.decode()

    async def succeeds(self, argv: Sequence[str], stdin: str = "") -> bool:
        try:
            await self.run(argv, stdin)
        except Refusal:
            return False
        return True

    async def nft(self, lines: Sequence[str]) -> None:
        """All of these in one transaction, or none."""
        with self.applied.transaction():
            await self.run(["nft", "-f", "-"], "\n".join(lines) + "\n")

    async def nft_accepts(self, lines: Sequence[str]) -> bool:
        """Whether the kernel would take these; it checks them and takes nothing."""
        return await self.succeeds(["nft", "-c", "-f", "-"], "\n".join(lines) + "\n")
