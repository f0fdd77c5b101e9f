"""Two data centers of two real hosts each, a vCenter in each, and a center above them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from deploy.demo.control import Control, connected
from deploy.demo.federation import DOMAINS
from deploy.demo.real import RealStage
from deploy.lab import Lab, netns, underlay
from deploy.lab.daemons import PORT, Center, Daemon, agent, vcenter, wait_socket

_ADDRESSES = {"east": "10.0.0.101", "west": "10.0.0.102", "center": "10.0.0.103"}
_HOSTS = {"east": (1, 2), "west": (3, 4)}


class FederationRealStage(RealStage):
    """See `deploy.demo.federation.FederationStage`."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self._lab = Lab(run_id, hosts=4, hypervisor="libvirt", gated=True)
        names = self._lab.names
        self._centers = {
            name: Center(name, names.vcenter_of(name), _ADDRESSES[name], names.work / name)
            for name in DOMAINS
        }

    def up(self) -> None:
        self._lab.up()
        for center in self._centers.values():
            center.folder.mkdir()
            netns.create(center.netns)
            underlay.plug(self._lab.names.underlay, center.netns, center.address)
        underlay.split(self._lab.names.underlay, ["west", *(f"h{n}" for n in _HOSTS["west"])])
        self._daemons = [vcenter(self._lab, at=c, extra=self._knows(c)) for c in self._all()]
        self._start(self._daemons)
        for center in self._all():
            wait_socket(center.socket)
        agents = [
            agent(self._lab, self._lab.host(number), at=self._centers[name])
            for name, numbers in _HOSTS.items()
            for number in numbers
        ]
        self._start(agents)
        self._daemons += agents

    def _start(self, daemons: list[Daemon]) -> None:
        for daemon in daemons:
            daemon.start()

    def _all(self) -> list[Center]:
        return list(self._centers.values())

    def _knows(self, own: Center) -> str:
        """Its neighbours: the center has the others below it, and believes their word."""
        if own.name != "center":
            return self._neighbour(own, "center", "parent", "admin")
        return "".join(self._neighbour(own, name, "child", "admin") for name in _HOSTS)

    def _neighbour(self, own: Center, name: str, relation: str, vouches: str) -> str:
        other = self._centers[name]
        return f"""
[[domains]]
name = "{name}"
relation = "{relation}"
vouches = "{vouches}"
address = "{other.address}:{PORT}"
{other.domain.table(f"domain/{own.name}")}
"""

    @contextmanager
    def controls(self) -> Iterator[Mapping[str, Control]]:
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(connected(f"unix:{c.socket}", c.domain.operator))
                for name, c in self._centers.items()
            }

    def cut(self) -> None:
        underlay.set_line(self._lab.names.underlay, up=False)

    def mend(self) -> None:
        underlay.set_line(self._lab.names.underlay, up=True)

    def lines(self) -> list[str]:
        """Command lines that work while the stage stays up."""
        vctl = f".venv/bin/vctl --config {self._centers['center'].domain.vctl}"
        return [
            f"{vctl} domain tree",
            f"{vctl} vm where 1001/10.1.0.5",
            f"{vctl} vm move 1001/10.1.0.5 --to east/h2",
            f"{vctl} op list --domain west",
            "./scripts/demo --down",
        ]
