"""The hosts' side of the networks: what they are told, as bytes, against what is true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.codec.wanted import from_change, from_network
from common.model.server import Server
from common.model.vm import VmRecord
from common.model.wanted import Forward, WantedNetwork
from common.pb.vsignal.v1.session_pb2 import CenterMessage
from vcenter.agents.networks import Networks
from vcenter.core import indexes
from vcenter.core.table import Applied, Table
from vcenter.core.wanted import hosts_on
from vserver.core.networks import Networks as Heard


class Hearers:
    """Hosts that hear of networks what the vCenter has for them, when they are told to."""

    def __init__(self, table: Table, hosts: Sequence[str], vnis: Sequence[int]) -> None:
        self._vnis = vnis
        self._heard = {host: Heard(_vtep(table, host)) for host in hosts}
        self.reattach(table)

    def reattach(self, table: Table) -> None:
        """Another vCenter has taken over: every host names what it holds, and goes on from it."""
        self._table = table
        self._networks = Networks(table, self._tell)
        self._marked = {(host, vni) for host in self._heard for vni in self._vnis}
        self._position: dict[tuple[str, int], int] = {}
        for host, heard in self._heard.items():
            for vni, digest in heard.held():
                self._position[host, vni] = self._networks.heard_by_digest(vni, digest)
            heard.attach()

    def _tell(self, vni: int, hosts: Iterable[str]) -> None:
        self._marked |= {(host, vni) for host in hosts}

    def note(self, change: Applied, named: Iterable[tuple[str, object]]) -> None:
        self._networks.note(change)
        if isinstance(change.after, Server):
            self._began(change.before, change.after)
        self._marked |= {(h, item) for h, item in named if isinstance(item, int)}

    def _began(self, before: object, server: Server) -> None:
        """An agent with another tunnel end is one that was started anew, and holds nothing."""
        if not isinstance(before, Server) or before.vtep_address != server.vtep_address:
            self._heard[server.server_id] = Heard(server.vtep_address)
            for vni in self._vnis:
                self._position.pop((server.server_id, vni), None)
                self._marked.add((server.server_id, vni))

    def hear(self) -> None:
        """All that is marked, as their sessions would; then everybody is right."""
        self._networks.settle()
        marked, self._marked = self._marked, set()
        for host, vni in marked:
            told = self._networks.news(vni, host, self._position.get((host, vni)))
            if told is None:
                self._position.pop((host, vni), None)
                self._heard[host].drop(vni)
                continue
            messages, self._position[host, vni] = told
            for data in messages:
                message = CenterMessage.FromString(data)
                if message.HasField("network"):
                    assert self._heard[host].put(from_network(message.network))
                else:
                    assert self._heard[host].change(from_change(message.network_change))
        self._check()

    def _check(self) -> None:
        for host, heard in self._heard.items():
            for vni in self._vnis:
                true, seen = should_hear(self._table, host, vni), heard.wanted.get(vni)
                assert _sorted(seen) == _sorted(true), (host, vni)


def should_hear(table: Table, host: str, vni: int) -> WantedNetwork | None:
    """The long way: every VM is looked at."""
    hosts = hosts_on(table, vni)
    if host not in hosts:
        return None
    records = [r for r in table.all(VmRecord, indexes.VMS) if vni in r.vm.vnis()]
    forwards = tuple(
        Forward(i.mac, _vtep(table, r.location.server_id))
        for r in records
        for i in r.vm.interfaces
        if i.vni == vni and r.location.server_id != host and _vtep(table, r.location.server_id)
    )
    vteps = {_vtep(table, other) for other in hosts if other != host} - {""}
    network = table.network_of(vni)
    return WantedNetwork(vni, network.network_id if network else "", forwards, tuple(vteps))


def _vtep(table: Table, host: str) -> str:
    server = table.server(host)
    return server.vtep_address if server is not None else ""


def _sorted(network: WantedNetwork | None) -> object:
    if network is None:
        return None
    forwards = sorted((f.mac, f.vtep_address) for f in network.forwards)
    return network.vni, network.network, forwards, sorted(network.vteps)
