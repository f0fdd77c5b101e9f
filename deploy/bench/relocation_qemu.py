"""Relocation with the `qemu` adaptor, beside two QEMUs and their monitors, in turns.

The rival does what a person with QMP must do, and no more: start a QEMU at the destination that
waits for the same guest, plug its tap in, say `migrate`, and end the source once it is complete.
The guest runs there as soon as QEMU can, nothing is asked, proved or told, and bare bridges with a
flooding VXLAN need no word of it. It moves twice a round: with QEMU's own parameters, among which
is a limit of 128 MiB/s, and without that limit, which our guests do not have either.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from common.config import parse
from deploy.bench.entry import Entry
from deploy.bench.moving import BRIDGE, NIC, OTHER, Runs, product
from deploy.demo.control import until
from deploy.demo.story import PROBE_ADDRESS, WEB
from deploy.lab import GuestSpec, Host, Lab, Probe
from deploy.lab.console import Console
from deploy.lab.names import fresh_run_id
from deploy.lab.overlay import flood
from deploy.lab.qemu_guest import definition
from vserver.hypervisor.qemu.command import command, tap_name
from vserver.hypervisor.qemu.definition import Definition
from vserver.hypervisor.qemu.home import Home, Launch
from vserver.hypervisor.qemu.launching import BINARY, end
from vserver.hypervisor.qemu.monitor import at_hand

_PORT = 4444
_MACHINE = "q35"


class RawGuest:
    """A guest by QEMU's command line, with the devices that ours has."""

    def __init__(self, spec: GuestSpec, host: Host) -> None:
        self.host = host
        self._definition = parse(definition(spec), Definition)

    def home(self, host: Host) -> Home:
        return Home(host.work / self._definition.uuid)

    def start(self, *more: str, on: Host) -> None:
        home = self.home(on)
        home.path.mkdir(exist_ok=True)
        [nic] = self._definition.interface
        tap = tap_name(self._definition.uuid, nic.mac)
        launch = Launch(
            definition=self._definition, taps={nic.mac: tap}, accelerator="tcg", machine=_MACHINE
        )
        argv = command(BINARY, home, launch, incoming=False)
        argv.remove("-S")
        on.run([*argv, *more])
        on.run(["ip", "link", "set", tap, "master", nic.bridge, "up"])

    def move(self, to: Host, limit: int | None) -> float:
        """How long `migrate` itself took, in ms."""
        here, uri = self.home(self.host), f"tcp:{to.address}:{_PORT}"
        self.start("-incoming", uri, on=to)
        alone = asyncio.run(self._migrate(here, uri, limit))
        self.host = to
        return alone

    async def _migrate(self, here: Home, uri: str, limit: int | None) -> float:
        async with at_hand(here.file("hand"), here.vm_id) as monitor:
            events = [{"capability": "events", "state": True}]
            await monitor.execute("migrate-set-capabilities", capabilities=events)
            if limit:
                await monitor.execute("migrate-set-parameters", max_bandwidth=limit)
            started = time.perf_counter()
            await monitor.execute("migrate", uri=uri)
            async for event in monitor.events():
                if event["event"] == "MIGRATION" and event["data"]["status"] == "completed":
                    break
            alone = (time.perf_counter() - started) * 1000
        await end(here)
        return alone

    def wait_ready(self) -> None:
        Console(self.home(self.host).file("console")).wait_ready(60.0)


@dataclass
class Rival:
    """One way of the rival's; its runs."""

    words: str
    limit: int | None
    runs: Runs = field(default_factory=Runs)
    alone_ms: list[float] = field(default_factory=list)


@contextmanager
def _raw() -> Iterator[tuple[Callable[[Rival], None], Probe]]:
    with Lab(fresh_run_id(), hosts=3, hypervisor="qemu") as lab:
        flood(lab, WEB.vni)
        guest = RawGuest(GuestSpec(WEB.name, (NIC,), uuid=WEB.vm_id), lab.host(1))
        guest.start(on=lab.host(1))
        other = RawGuest(GuestSpec("batch", (OTHER,)), lab.host(3))
        other.start(on=lab.host(3))  # as many guests as on our side
        guest.wait_ready()

        def move(rival: Rival) -> None:
            to = lab.host(2) if guest.host is lab.host(1) else lab.host(1)
            rival.alone_ms.append(guest.move(to, rival.limit))

        yield move, lab.probe("eye", on=3, bridge=BRIDGE, address=PROBE_ADDRESS)


def run(vms: int, rounds: int) -> list[Entry]:
    del vms  # one that moves, and one that is watched from
    ours = Runs()
    rivals = [
        Rival("QMP migrate, QEMU's parameters", None),
        Rival("QMP migrate, no limit", 1 << 40),
    ]
    with ExitStack() as stack:
        raw_move, raw_probe = stack.enter_context(_raw())
        our_move, our_probe = stack.enter_context(product("qemu"))
        until("the rival's guest answers", partial(raw_probe.ping, WEB.ip))
        until("our guest answers", partial(our_probe.ping, WEB.ip))
        raw_move(Rival("warms caches", None))
        our_move()
        for _ in range(rounds):
            for rival in rivals:
                rival.runs.measure(raw_probe, partial(raw_move, rival))
            ours.measure(our_probe, our_move)
    return [entry for rival in rivals for entry in _entries(ours, rival)]


def _entries(ours: Runs, rival: Rival) -> list[Entry]:
    return ours.beside(
        rival.runs,
        "relocation-qemu",
        rival.words,
        guest="128 MiB, idle, TCG",
        migrate_alone_ms=statistics.median(rival.alone_ms),
    )
