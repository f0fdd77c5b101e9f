"""What happened, in the order in which it happened: the same for the same seed, byte for byte."""

from __future__ import annotations

import asyncio
import hashlib


class Violated(Exception):
    """Something that must always hold does not."""


class Journal:
    """`say` is for what happens in the world; `quote` for what our daemons log about it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.lines: list[str] = []  # the world's own
        self.story: list[str] = []  # with the daemons' words between
        self.violations: list[str] = []

    def say(self, who: str, what: str) -> None:
        line = f"{self._loop.time():9.4f}  {who:<10} {what}"
        self.lines.append(line)
        self.story.append(line)

    def quote(self, who: str, what: str) -> None:
        self.story.append(f"{self._loop.time():9.4f}  {who:<10}   | {what}")

    def violated(self, invariant: str, what: str) -> None:
        text = f"{invariant}: {what}"
        if text not in self.violations:
            self.violations.append(text)
            self.say("VIOLATED", text)

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def short(vm_id: str) -> str:
    """The end of a vm_id, which is what they differ in."""
    return f"vm{int(vm_id[-4:])}"
