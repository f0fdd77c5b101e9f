"""The bench on QEMU itself: two adaptors with a directory each, in a network namespace of theirs.

Somebody with `vserver guest` is `Hand`, which is what that command calls.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.model.disk import Disk
from deploy.lab import netns, shell
from deploy.lab.available import why_unavailable
from tests.contract import disk_images
from tests.contract.hypervisor_bench import BRIDGE, Machine
from vserver.hypervisor.qemu import bell, launching
from vserver.hypervisor.qemu.adaptor import QemuHypervisor
from vserver.hypervisor.qemu.definition import Definition, DiskSection, NicSection
from vserver.hypervisor.qemu.hand import Hand
from vserver.hypervisor.qemu.home import Homes
from vserver.hypervisor.qemu.monitor import at_hand
from vserver.hypervisor.qemu.secrecy import Secrecy

_PORTS = (7401, 7402)


@contextmanager
def namespace() -> Iterator[str]:
    if reason := why_unavailable():
        if os.environ.get("CI"):
            pytest.fail(f"no real hosts in CI: {reason}")
        pytest.skip(f"no real hosts: {reason}")
    name = f"q{secrets.token_hex(3)}"
    netns.create(name)
    try:
        shell.run(["ip", "link", "add", BRIDGE, "up", "type", "bridge"], netns=name)
        yield name
    finally:
        netns.remove([name])


class QemuBench:
    kind = "qemu"
    unreachable_uri = "qmp+tcp://127.0.0.1:9"
    destination_uri = f"qmp+tcp://127.0.0.1:{_PORTS[1]}"

    def __init__(
        self, folder: Path, secrecy: Callable[[int], Secrecy | None] = lambda _: None
    ) -> None:
        """`secrecy`: of each side's copies, by its number; in clear if not said otherwise."""
        self.roots = [folder / "a", folder / "b"]
        self._secrecy = secrecy
        self.source = self._adaptor(0)
        self.destination = self._adaptor(1)

    def _adaptor(self, number: int) -> QemuHypervisor:
        uri = f"qmp+tcp://127.0.0.1:{_PORTS[number]}"
        secrecy = self._secrecy(number)
        return QemuHypervisor(self.roots[number], SystemClock(), migration_uri=uri, secrecy=secrecy)

    def hand(self, *, there: bool = False) -> Hand:
        return Hand(Homes(self.roots[there]), SystemClock())

    async def create(self, machine: Machine, *, started: bool = True) -> None:
        """The file is written past `define`, which refuses broken metadata."""
        home = Homes(self.roots[0]).of(machine.vm_id)
        home.define(definition(machine))
        bell.ring(self.roots[0], machine.vm_id)
        if started:
            await self.hand().start(machine.vm_id)

    async def make_disk(self, machine: Machine, *, there: bool = False) -> Disk:
        machine.disk = "root.qcow2"
        image = self._image(machine, there)
        image.parent.mkdir(exist_ok=True)
        return disk_images.make(image, machine.disk)

    async def has_disk(self, machine: Machine, *, there: bool = False) -> bool | None:
        return disk_images.has(self._image(machine, there))

    def _image(self, machine: Machine, there: bool) -> Path:
        return Homes(self.roots[there]).of(machine.vm_id).file(machine.disk)

    async def guest_writes(self, machine: Machine) -> None:
        """Through the disk's device, as a guest does: it is over when this returns."""
        home = Homes(self.roots[0]).of(machine.vm_id)
        device = "/machine/peripheral/blk0/virtio-backend"
        words = f'qemu-io -d {device} "{disk_images.MARK}"'
        async with at_hand(home.file("hand"), machine.vm_id) as monitor:
            said = await monitor.execute("human-monitor-command", command_line=words)
        assert not str(said).strip(), said

    async def has_written(self, machine: Machine, *, there: bool = False) -> bool:
        return disk_images.has_mark(self._image(machine, there))

    async def by_hand(self, action: str, vm_id: str, *, there: bool = False) -> None:
        hand = self.hand(there=there)
        match action:
            case "start" | "undefine":
                await getattr(hand, action)(vm_id)
            case "stop":
                await hand.stop(vm_id, within=0)
            case "pause":
                await hand.suspend(vm_id)
            case "migrate":
                await self._migrate(vm_id)

    async def _migrate(self, vm_id: str) -> None:
        """What a person would do with two QEMUs and their monitors, past every control plane."""
        here, there = (Homes(root).of(vm_id) for root in self.roots)
        launch = here.launch()
        assert launch is not None
        taps = {mac: "vsp" + device[3:][::-1] for mac, device in launch.taps.items()}
        there.define(launch.definition)
        await launching.run(there, launch.model_copy(update={"taps": taps}), incoming=True)
        async with (
            at_hand(there.file("hand"), vm_id) as to,
            at_hand(here.file("hand"), vm_id) as of,
        ):
            events = [{"capability": "events", "state": True}]
            await to.execute("migrate-set-capabilities", capabilities=events)
            await to.execute("migrate-incoming", uri="tcp:127.0.0.1:7499")
            await of.execute("migrate", uri="tcp:127.0.0.1:7499")
            async for event in to.events():
                if event["event"] == "MIGRATION" and event["data"]["status"] == "completed":
                    break
            await launching.end(here)
            await to.execute("cont")
        here.remove()
        for root in self.roots:
            bell.ring(root, vm_id)

    async def copy_slowly(self, vm_id: str) -> None:
        home = Homes(self.roots[0]).of(vm_id)
        async with at_hand(home.file("hand"), vm_id) as monitor:
            await monitor.execute("migrate-set-parameters", max_bandwidth=1 << 20)

    async def restart_daemon(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """There is none; what can go away under the agent is the directory of guests."""
        away = self.roots[0].with_name("away")
        self.roots[0].rename(away)
        try:
            await meanwhile()
        finally:
            away.rename(self.roots[0])

    async def restart_agent(self) -> None:
        await self.destination.close()
        self.destination = self._adaptor(1)
        await self.destination.open()

    async def restart_source(self) -> None:
        await self.source.close()
        self.source = self._adaptor(0)
        await self.source.open()

    async def copy_quickly(self, vm_id: str) -> None:
        """What was slow goes on as it likes."""
        home = Homes(self.roots[0]).of(vm_id)
        async with at_hand(home.file("hand"), vm_id) as monitor:
            await monitor.execute("migrate-set-parameters", max_bandwidth=1 << 40)

    def pid(self, vm_id: str, *, there: bool = False) -> int:
        return int(Homes(self.roots[there]).of(vm_id).file("pid").read_text())

    async def memory(self, vm_id: str, *, there: bool = False) -> bytes:
        """The guest's first MiB."""
        home = Homes(self.roots[there]).of(vm_id)
        file = home.path.parent.parent / "memory"
        async with at_hand(home.file("hand"), vm_id) as monitor:
            await monitor.execute("pmemsave", val=0, size=1 << 20, filename=str(file))
        return file.read_bytes()

    def make_image(self, file: Path) -> None:
        shell.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "64M"])

    def snapshots(self, file: Path) -> str:
        return shell.run(["qemu-img", "snapshot", "-l", str(file)])

    async def drop_standbys(self) -> None:
        for host in (self.source, self.destination):
            assert host.standbys is not None
            for vm_id in await host.standbys.kept():
                await host.standbys.unmirror(vm_id)
                await host.standbys.drop(vm_id)

    async def clean(self) -> None:
        for root in self.roots:
            for home in Homes(root).all():
                await launching.end(home)


def definition(machine: Machine) -> Definition:
    nic = NicSection(
        mac=machine.mac, bridge=BRIDGE, network="blue", vni=int(machine.vni), ips=("10.1.0.5",)
    )
    return Definition(
        uuid=machine.vm_id,
        name=machine.name,
        memory_mib=machine.memory_mib,
        tenant=machine.tenant,
        group="web",
        interface=(nic,),
        disk=(DiskSection(path=Path(machine.disk)),) if machine.disk else (),
    )


@asynccontextmanager
async def qemu_bench(
    name: str, secrecy: Callable[[int], Secrecy | None] = lambda _: None
) -> AsyncIterator[QemuBench]:
    """This thread is inside the namespace for as long as the bench stands."""
    folder = Path(tempfile.mkdtemp(prefix="vsq"))
    with netns.entered(name):
        bench = QemuBench(folder, secrecy)
        await bench.source.open()
        await bench.destination.open()
        try:
            yield bench
        finally:
            await bench.drop_standbys()
            await bench.source.close()
            await bench.destination.close()
            await bench.clean()
            shutil.rmtree(folder)
