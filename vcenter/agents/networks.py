"""What became different on a network, put into bytes once for all of its hosts.

A session has heard a network up to a position. What came after it is handed out from here, as long
as it is remembered; who is further behind hears the whole network, which is also made once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from common.codec.wanted import to_change, to_network
from common.pb.vsignal.v1.session_pb2 import CenterMessage
from vcenter.core.roster import NOBODY, Members, Roster, moved_ends, touched
from vcenter.core.table import Applied, Table

REMEMBERED = 1 << 20


@dataclass(frozen=True, slots=True)
class _Step:
    """From one position of a network, and its digest then, to the next."""

    since: int
    before: int
    data: bytes


class _Told:
    """One network: its roster, the last steps, and a snapshot that they go on from."""

    def __init__(
        self,
        table: Table,
        vni: int,
        remembered: int,
        afar: Mapping[int, Members],
        positions: Iterator[int],
    ) -> None:
        self.roster = Roster(table, vni, afar)
        self._positions = positions
        self.at = next(positions)
        self._remembered = remembered
        self._steps: deque[_Step] = deque()
        self._size = 0
        self._whole: list[bytes] = []
        self._whole_at = 0

    def anew(self) -> None:
        self.roster.begin()
        self.at = next(self._positions)
        self._forget()

    def settle(self) -> bool:
        """Whether the hosts have something to hear."""
        since, digest = self.at, self.roster.digest
        change = self.roster.settle()
        if self.roster.digest != digest:
            self.at = next(self._positions)
        if change is not None:
            data = CenterMessage(network_change=to_change(change)).SerializeToString()
            self._remember(_Step(since, digest, data))
        elif self.roster.digest != digest:
            self._forget()
        return self.roster.digest != digest

    def since(self, position: int | None) -> list[bytes]:
        """The messages for whoever has heard it up to a position; None: nothing of it."""
        missed = self._after(position)
        if missed is not None:
            return missed
        missed = self._after(self._whole_at) if self._whole else None
        if missed is None or _size(missed) > _size(self._whole):
            parts = self.roster.whole()
            self._whole = [CenterMessage(network=to_network(p)).SerializeToString() for p in parts]
            self._whole_at, missed = self.at, []
        return [*self._whole, *missed]

    def position(self, digest: int) -> int:
        """Up to where somebody has heard it who holds what has this digest; 0: unknown."""
        if digest == self.roster.digest:
            return self.at
        return next((s.since for s in reversed(self._steps) if s.before == digest), 0)

    def _after(self, position: int | None) -> list[bytes] | None:
        if position == self.at:
            return []
        missed = []
        for step in reversed(self._steps):
            missed.append(step.data)
            if step.since == position:
                return missed[::-1]
        return None

    def _remember(self, step: _Step) -> None:
        self._steps.append(step)
        self._size += len(step.data)
        while self._size > self._remembered:
            self._size -= len(self._steps.popleft().data)

    def _forget(self) -> None:
        self._steps.clear()
        self._size, self._whole = 0, []


class Networks:
    """The networks that attached hosts have asked of. `tell(vni, hosts)` is called for those that
    became different. `remembered`: bytes of changes that are kept of each."""

    def __init__(
        self,
        table: Table,
        tell: Callable[[int, Iterable[str]], None],
        remembered: int = REMEMBERED,
    ) -> None:
        self._table = table
        self._remembered = remembered
        self._tell = tell
        self._told: dict[int, _Told] = {}
        self._unsettled: set[int] = set()
        self._anew: set[int] = set()
        self._afar: dict[int, Members] = {}
        self._positions = count(1)  # never given twice, so that what was forgotten fits nothing

    def span(self, vni: int, members: Members) -> None:
        """Who of a network is in other domains now."""
        before = self._afar.get(vni, NOBODY)
        if members == before:
            return
        self._afar[vni] = members
        if members == NOBODY:
            del self._afar[vni]
        told = self._told.get(vni)
        if told is not None:
            told.roster.touch_afar(before)
            self._unsettled.add(vni)
            self.settle()

    def note(self, change: Applied) -> None:
        """Every change of the ledger, in order, right after the table has it."""
        for vni, mac, owner in touched(self._table, change):
            told = self._told.get(vni)
            if told is not None:
                self._unsettled.add(vni)
                if mac:
                    told.roster.touch(mac, owner)
        self._anew |= self._told.keys() & moved_ends(self._table, change)

    @property
    def settled(self) -> bool:
        return not (self._unsettled or self._anew)

    def settle(self) -> None:
        """Put what was noted into words; many changes make one message."""
        anew, self._anew = self._anew, set()
        for vni in sorted(anew):
            hosts = self._told[vni].roster.vteps.keys()
            self._told[vni].anew()
            self._tell(vni, sorted(hosts | self._told[vni].roster.vteps.keys()))
        unsettled, self._unsettled = self._unsettled - anew, set()
        for vni in sorted(unsettled):
            told = self._told[vni]
            if told.settle():
                self._tell(vni, told.roster.vteps)
            if not told.roster.vteps:
                del self._told[vni]

    def news(self, vni: int, server_id: str, heard: int | None) -> tuple[list[bytes], int] | None:
        """What a host has not heard yet, and up to where it has then. None: it is not on it."""
        told = self._of(vni)
        if server_id not in told.roster.vteps:
            return None
        return told.since(heard), told.at

    def heard_by_digest(self, vni: int, digest: int) -> int:
        """Up to where somebody has heard a network who holds what has this digest; 0: unknown."""
        return self._of(vni).position(digest)

    def forget(self) -> None:
        """Nobody is attached."""
        self._told.clear()
        self._unsettled.clear()
        self._anew.clear()

    def _of(self, vni: int) -> _Told:
        self.settle()
        told = self._told.get(vni) or _Told(
            self._table, vni, self._remembered, self._afar, self._positions
        )
        if told.roster.vteps:
            self._told[vni] = told
        return told


def _size(messages: Iterable[bytes]) -> int:
    return sum(map(len, messages))
