"""The networks that this host takes part in, as the vCenter tells them to all of their hosts.

Every change says what it fits and what it gives, by digest. Whoever holds something else has missed
something, whatever it was, and asks for the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.model.wanted import (
    Forward,
    NetworkChange,
    NetworkPart,
    WantedNetwork,
    digest_after,
    network_digest,
)


@dataclass(slots=True)
class _Told:
    """One VNI with all of its interfaces, this host's own too."""

    network: str
    forwards: dict[str, str]
    vteps: set[str]
    revision: int
    digest: int

    def seen_from(self, vni: int, vtep: str) -> WantedNetwork:
        """What is behind the host's own tunnel end is not behind a tunnel."""
        forwards = [Forward(mac, end) for mac, end in self.forwards.items() if end != vtep]
        return WantedNetwork(vni, self.network, tuple(forwards), tuple(sorted(self.vteps - {vtep})))


class Networks:
    """`vtep`: this host's own tunnel end."""

    def __init__(self, vtep: str) -> None:
        self._vtep = vtep
        self._told: dict[int, _Told] = {}
        self._seen: dict[int, WantedNetwork] = {}  # made when somebody looks
        self._parts: dict[int, list[NetworkPart]] = {}
        self._asked: set[int] = set()  # for the whole network; until it comes, changes mean nothing

    def attach(self) -> None:
        """A new stream: what was half said is void, and revisions begin anew."""
        self._parts.clear()
        self._asked.clear()
        for told in self._told.values():
            told.revision = 0

    @property
    def wanted(self) -> dict[int, WantedNetwork]:
        for vni in self._told.keys() - self._seen.keys():
            self._seen[vni] = self._told[vni].seen_from(vni, self._vtep)
        return self._seen

    def held(self) -> tuple[tuple[int, int], ...]:
        return tuple((vni, told.digest) for vni, told in self._told.items())

    def put(self, part: NetworkPart) -> bool:
        """False: it does not fit, and the whole must be asked for."""
        vni = part.network.vni
        parts = self._parts.setdefault(vni, [])
        if parts and (parts[-1].revision, parts[-1].more - 1) != (part.revision, part.more):
            parts.clear()  # the one before was given up for this one
        parts.append(part)
        if part.more:
            return True
        del self._parts[vni]
        told = _joined(parts)
        if network_digest(told.forwards.items(), told.vteps) != told.digest:
            self._asked.add(vni)
            return False
        self._take(vni, told)
        return True

    def change(self, change: NetworkChange) -> bool:
        """False: as above. While the whole is on its way, changes are passed over."""
        vni, told = change.vni, self._told.get(change.vni)
        if vni in self._asked:
            return True
        if told is None or told.digest != change.before or change.revision < told.revision:
            self._asked.add(vni)
            return False
        after = _after(told, change)
        if after.digest != change.digest:
            self._asked.add(vni)
            return False
        self._take(vni, after)
        return True

    def drop(self, vni: int) -> None:
        self._told.pop(vni, None)
        self._seen.pop(vni, None)
        self._parts.pop(vni, None)
        self._asked.discard(vni)

    def keep(self, vnis: set[int]) -> None:
        """Drop all others."""
        for vni in self._told.keys() - vnis:
            self.drop(vni)

    def _take(self, vni: int, told: _Told) -> None:
        self._told[vni] = told
        self._seen.pop(vni, None)
        self._asked.discard(vni)


def _joined(parts: list[NetworkPart]) -> _Told:
    last = parts[-1]
    forwards = {f.mac: f.vtep_address for part in parts for f in part.network.forwards}
    vteps = {vtep for part in parts for vtep in part.network.vteps}
    return _Told(last.network.network, forwards, vteps, last.revision, last.digest)


def _after(told: _Told, change: NetworkChange) -> _Told:
    """A network with a change, and the digest that it truly has."""
    put = {f.mac: f.vtep_address for f in change.forwards}
    gone = {m: told.forwards[m] for m in (*put, *change.macs_gone) if m in told.forwards}
    come, left = set(change.vteps) - told.vteps, set(change.vteps_gone) & told.vteps
    forwards = {**told.forwards, **put}
    for mac in change.macs_gone:
        forwards.pop(mac, None)
    digest = digest_after(
        told.digest, network_digest(put.items(), come), network_digest(gone.items(), left)
    )
    vteps = (told.vteps | come) - left
    return _Told(told.network, forwards, vteps, change.revision, digest)
