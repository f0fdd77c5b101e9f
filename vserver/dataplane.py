"""The host's data plane: one change at a time, and what is in force as it was read last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Set

from common import log
from common.errors import Reason, Refusal
from common.model.profile import Capability
from common.model.wanted import WantedNetwork
from vserver.core.diff import ApplyNetwork, ApplyPort, Operation, RemoveNetwork, RemovePort
from vserver.freshness import Freshness
from vserver.guests import FAILURES
from vserver.network.port import Network, Observed, ObservedPort, Port

_log = log.get(__name__)


class DataPlane:
    """Changes queue for a lock, one operation each, so that an urgent one waits for one at most.

    Readings do not take it: a slow one must not keep a port from being opened.
    """

    def __init__(self, network: Network, taps: Callable[[], frozenset[str]]) -> None:
        self._network = network
        self._taps = taps
        self._changing = asyncio.Lock()
        self._fresh_ports: Freshness[str] = Freshness()
        self._fresh_networks: Freshness[int] = Freshness()
        self._ports: dict[str, ObservedPort] = {}
        self._networks: dict[int, WantedNetwork] = {}
        self.capabilities: frozenset[Capability] = frozenset()
        self.read = False  # it has been read at least once: before, nothing may be concluded
        self.problems: dict[str, str] = {}  # by device: why the last change of it failed

    async def open(self) -> None:
        await self._network.open()
        self.capabilities = await self._network.capabilities()

    @property
    def observed(self) -> Observed:
        """As read last, with what was changed since."""
        return Observed(self._ports, self._networks)

    async def refresh(self) -> None:
        """Read everything again; if that fails, what is known stands."""
        try:
            await self.read_back()
        except FAILURES as error:
            _log.warning("cannot read the data plane", error=str(error))

    async def read_back(self) -> Observed:
        """What is in force now, from the kernel; raises as the network does."""
        ports, networks = self._fresh_ports.begin(), self._fresh_networks.begin()
        found = await self._network.observe()
        self._fresh_ports.merge(self._ports, found.ports, ports)
        self._fresh_networks.merge(self._networks, found.networks, networks)
        self.read = True
        return found

    async def disturbed(self) -> bool:
        """Whether it is worth reading again before the next beat."""
        return await self._network.disturbed()

    def vouched(self, ports: Iterable[Port]) -> Mapping[str, ObservedPort]:
        """These ports as they are in force, without a reading that takes time; nothing unless the
        network can vouch for every one of them."""
        ports = list(ports)
        if not all(self._network.vouches(port) for port in ports):
            return {}
        return {port.device: ObservedPort(port, intact=True, attached=True) for port in ports}

    async def apply(self, operation: Operation) -> None:
        """Carry out one operation. Raises `Refusal`; then the port is as it was.

        Moves and the reconcile loop often want the same of a port: who comes second finds it done.
        """
        async with self._changing:
            try:
                await self._carry_out(operation)
            except FAILURES as error:
                refusal = _as_refusal(error)
                if isinstance(operation, ApplyPort):
                    problem = f"{refusal.reason.name}: {refusal.message}"
                    self.problems[operation.port.device] = problem
                raise refusal from error

    def forget_problems(self, keep: Set[str]) -> None:
        """Those of ports that nobody wants any more."""
        for device in self.problems.keys() - keep:
            del self.problems[device]

    async def _carry_out(self, operation: Operation) -> None:
        match operation:
            case ApplyPort(port):
                attached = port.device in self._taps()
                after = ObservedPort(port, intact=True, attached=attached)
                if self._ports.get(port.device) != after or not self._network.vouches(port):
                    await self._network.apply_port(port)
                self._fresh_ports.takes(port.device, self._fresh_ports.begin())
                self._ports[port.device] = after
                self.problems.pop(port.device, None)
            case RemovePort(device):
                await self._network.remove_port(device)
                self._fresh_ports.takes(device, self._fresh_ports.begin())
                self._ports.pop(device, None)
            case ApplyNetwork(network):
                await self._lay(network)
                self._fresh_networks.takes(network.vni, self._fresh_networks.begin())
                self._networks[network.vni] = network
            case RemoveNetwork(vni):
                await self._network.remove_network(vni)
                self._fresh_networks.takes(vni, self._fresh_networks.begin())
                self._networks.pop(vni, None)

    async def _lay(self, network: WantedNetwork) -> None:
        """After a failure nobody knows what is in force: the next attempt looks at the whole."""
        known = self._networks.get(network.vni)
        try:
            await self._network.apply_network(network, known)
        except BaseException:
            self._networks.pop(network.vni, None)
            raise


def _as_refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    return Refusal(Reason.NETWORK_FAILED, str(error) or type(error).__name__)
