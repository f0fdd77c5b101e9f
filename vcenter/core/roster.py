"""Who is where on one VNI, in the words that all of its hosts share, and what became different.

It keeps no list of its own: the table has it. What is kept is which MACs were touched since the
last change was told, and what had been said of them, so that a change costs what it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from common.model.identity import Claim
from common.model.operation import Operation
from common.model.server import Server
from common.model.vm import VmRecord
from common.model.wanted import (
    Forward,
    NetworkChange,
    NetworkPart,
    WantedNetwork,
    digest_after,
    network_digest,
)
from vcenter.core.table import Applied, Table
from vcenter.core.wanted import hosts_on, items_of

PART = 20_000  # forwards in one message: about a megabyte
MAX_CHANGE = 5_000  # MACs; a bigger change is told as a whole


@dataclass(frozen=True, slots=True)
class Members:
    """Of a network in other domains: MACs, each behind a tunnel end, and all tunnel ends."""

    forwards: Mapping[str, str] = field(default_factory=dict)
    ends: frozenset[str] = frozenset()


NOBODY = Members()


class Roster:
    """`vteps`: the tunnel end of each vServer that takes part, as it was told last; "" where it
    gave none. `digest` and `revision` are of that telling too."""

    def __init__(self, table: Table, vni: int, afar: Mapping[int, Members] | None = None) -> None:
        """`afar`: by VNI, who of it is in other domains; it may change, see `touch_afar`."""
        self.vni = vni
        self._table = table
        self._afar = afar if afar is not None else {}
        self.begin()

    def begin(self) -> None:
        """Forget what was told: the whole network is to be told anew."""
        self._touched: dict[str, str] = {}  # MAC: the tunnel end that was told; "" if none was
        self.vteps = {h: self._vtep(h) for h in sorted(hosts_on(self._table, self.vni))}
        self._far_ends = self._far.ends
        self.revision = self._table.revision
        self.digest = network_digest(self._forwards(), self._ends())

    def touch(self, mac: str, owner: str) -> None:
        """The MAC may be elsewhere now. `owner`: whose it was before; "" if nobody's."""
        told = self.vteps.get(owner, "") if owner else self._far.forwards.get(mac, "")
        self._touched.setdefault(mac, told)

    def touch_afar(self, before: Members) -> None:
        """Those of other domains are others than they were."""
        was, now = before.forwards, self._far.forwards
        for mac in (m for m in was.keys() | now.keys() if was.get(m) != now.get(m)):
            if self._table.holder(Claim(self.vni, mac)) is None:
                self._touched.setdefault(mac, was.get(mac, ""))

    @property
    def _far(self) -> Members:
        return self._afar.get(self.vni, NOBODY)

    def settle(self) -> NetworkChange | None:
        """What has become different since the last telling. None: nothing, or too much for one
        message; then `digest` tells which."""
        ends, before = self._ends(), self.digest
        self._follow_hosts()
        if len(self._touched) > MAX_CHANGE:
            self.begin()
            return None
        told, self._touched = self._touched, {}
        now = {mac: self._vtep_of(mac) for mac in told}
        put = [(mac, vtep) for mac, vtep in now.items() if vtep and vtep != told[mac]]
        dropped = [(mac, vtep) for mac, vtep in told.items() if vtep and vtep != now[mac]]
        come, gone = self._ends() - ends, ends - self._ends()
        if not (put or dropped or come or gone):
            return None
        self.revision = self._table.revision
        self.digest = digest_after(before, network_digest(put, come), network_digest(dropped, gone))
        return NetworkChange(
            vni=self.vni,
            revision=self.revision,
            before=before,
            digest=self.digest,
            forwards=tuple(Forward(mac, vtep) for mac, vtep in put),
            macs_gone=tuple(mac for mac, _ in dropped if not now[mac]),
            vteps=tuple(sorted(come)),
            vteps_gone=tuple(sorted(gone)),
        )

    def whole(self) -> Iterator[NetworkPart]:
        """The network as it was told last, to be read at once; nothing may be touched."""
        network = self._table.network_of(self.vni)
        name = network.network_id if network is not None else ""
        forwards = [Forward(mac, vtep) for mac, vtep in self._forwards()]
        starts = range(0, max(len(forwards), 1), PART)
        for start in starts:
            ends = tuple(sorted(self._ends())) if start == 0 else ()
            part = WantedNetwork(self.vni, name, tuple(forwards[start : start + PART]), ends)
            yield NetworkPart(part, self.revision, self.digest, len(starts) - 1 - start // PART)

    def _follow_hosts(self) -> None:
        hosts = hosts_on(self._table, self.vni)
        if hosts != self.vteps.keys():
            told = self.vteps
            self.vteps = {h: told[h] if h in told else self._vtep(h) for h in sorted(hosts)}
        self._far_ends = self._far.ends

    def _forwards(self) -> Iterator[tuple[str, str]]:
        for mac, owner in self._table.vms.macs_on(self.vni):
            vtep = self.vteps.get(owner)
            if vtep:
                yield mac, vtep
        for mac, vtep in self._far.forwards.items():
            if self._table.holder(Claim(self.vni, mac)) is None:
                yield mac, vtep

    def _ends(self) -> set[str]:
        return {vtep for vtep in self.vteps.values() if vtep} | self._far_ends

    def _vtep(self, host: str) -> str:
        server = self._table.server(host)
        return server.vtep_address if server is not None else ""

    def _vtep_of(self, mac: str) -> str:
        vm_id = self._table.holder(Claim(self.vni, mac))
        record = self._table.vm(vm_id) if vm_id is not None else None
        if record is None:
            return self._far.forwards.get(mac, "")
        return self.vteps.get(record.location.server_id, "")


def touched(table: Table, change: Applied) -> Iterator[tuple[int, str, str]]:
    """VNI, MAC and its owner before. No MAC: the VNI's hosts may be others now."""
    for side in (change.before, change.after):
        if isinstance(side, VmRecord):
            owner = side.location.server_id if side is change.before else ""
            yield from ((i.vni, i.mac, owner) for i in side.vm.interfaces if i.vni)
        elif isinstance(side, Operation):
            record = table.vm(side.vm_id)
            if record is not None:
                yield from ((vni, "", "") for vni in record.vm.vnis())


def moved_ends(table: Table, change: Applied) -> set[int]:
    """VNIs that must be told whole, for a host has another tunnel end now."""
    before, after = change.before, change.after
    if not isinstance(after, Server):
        return set()
    if isinstance(before, Server) and before.vtep_address == after.vtep_address:
        return set()
    return {item for item in items_of(table, after.server_id) if isinstance(item, int)}
