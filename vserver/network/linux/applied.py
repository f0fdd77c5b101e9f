"""Ports whose rules stand as we put them, without reading them back.

The kernel counts nftables transactions. As long as the count has grown by ours alone, what we wrote
last is what is there; anybody else's transaction makes us forget, and write everything anew. So a
prepared port is opened by two map entries, not by compiling its rules again, while its VM waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from vserver.network.linux.generation import generation
from vserver.network.port import Port


class Applied:
    def __init__(self, netns: str | None) -> None:
        self._netns = netns
        self._count: int | None = None
        self._ports: dict[str, Port] = {}

    def stands(self, port: Port) -> bool:
        """Whether the port's chains are in force already; whether it is open is another matter."""
        known = self._ports.get(port.device)
        return known is not None and _shut(known) == _shut(port) and self._is_undisturbed()

    def is_in_force(self, port: Port) -> bool:
        """Whether the port is exactly so, chains and being open or not."""
        return self._ports.get(port.device) == port and self._is_undisturbed()

    @property
    def count(self) -> int | None:
        """The kernel's count after the last transaction of ours."""
        return self._count

    def note(self, port: Port) -> None:
        """It has just been put in force."""
        self._ports[port.device] = port

    def forget(self, device: str) -> None:
        self._ports.pop(device, None)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Around each transaction of ours. After one that failed, nobody knows what stands."""
        before = generation(self._netns)
        if before is None or before != self._count:
            self._ports.clear()
        try:
            yield
        except BaseException:
            self._ports.clear()
            raise
        finally:
            self._count = after = generation(self._netns)
            if before is None or after not in (before, before + 1):
                self._ports.clear()

    def _is_undisturbed(self) -> bool:
        return self._count is not None and generation(self._netns) == self._count


def _shut(port: Port) -> Port:
    return replace(port, is_open=False)
