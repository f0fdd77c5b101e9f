"""Copies between `qemu` hosts by TLS: who is heard, and who gets a guest's memory."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common.errors import Refusal
from common.model.caller import Caller, Role, dns_name
from common.tls import Bundle
from common.wake import first_of
from deploy.lab import shell
from tests.contract.hypervisor_bench import PATIENCE, Machine
from tests.contract.hypervisor_qemu import QemuBench, namespace, qemu_bench
from tests.support.domain import Ca
from vserver.hypervisor.pki import publish
from vserver.hypervisor.port import CopyTerms
from vserver.hypervisor.qemu.home import Homes
from vserver.hypervisor.qemu.monitor import at_hand
from vserver.hypervisor.qemu.secrecy import Clear, Encrypted, Secrecy
from vserver.hypervisor.qemu.wire import Address, Line

pytestmark = pytest.mark.timeout(120)
CA = Ca()
NAMES = ["host-a", "host-b"]


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    with namespace() as name:
        yield name


def encrypted(folder: Path, bundle: Bundle) -> Encrypted:
    publish(bundle, folder)
    return Encrypted(folder)


@pytest.fixture
def sides(tmp_path: Path) -> list[Secrecy]:
    return [encrypted(tmp_path / name, CA.bundle(f"vserver/{name}")) for name in NAMES]


@pytest.fixture
async def bench(netns: str, sides: list[Secrecy]) -> AsyncIterator[QemuBench]:
    async with qemu_bench(netns, sides.__getitem__) as running:
        yield running


def named(bench: QemuBench, name: str = NAMES[1]) -> str:
    return f"{bench.destination_uri}#{dns_name('local', Caller(Role.VSERVER, name))}"


async def copy(bench: QemuBench, machine: Machine, uri: str) -> None:
    await bench.create(machine)
    await bench.destination.make_way(machine.vm_id)
    await bench.source.migrate(machine.vm_id, uri, machine.devices, lambda _: None)


async def test_a_guest_goes_there_and_back_by_tls(bench: QemuBench) -> None:
    """The QEMU that has received is the one that sends."""
    machine = Machine()
    await copy(bench, machine, named(bench))
    await bench.destination.resume(machine.vm_id)
    home = Homes(bench.roots[1]).of(machine.vm_id)
    async with at_hand(home.file("hand"), machine.vm_id) as monitor:
        assert (await monitor.execute("query-migrate-parameters"))["tls-creds"]
    await bench.source.make_way(machine.vm_id)
    back = f"qmp+tcp://127.0.0.1:7401#{dns_name('local', Caller(Role.VSERVER, NAMES[0]))}"
    devices = dict.fromkeys(machine.devices, "vsp9876543210")  # both are in one namespace here
    await bench.destination.migrate(machine.vm_id, back, devices, lambda _: None)
    await bench.source.resume(machine.vm_id)


async def test_its_disk_goes_by_tls_too(bench: QemuBench) -> None:
    machine = Machine()
    disk = await bench.make_disk(machine)
    await bench.create(machine)
    await bench.destination.make_way(machine.vm_id, [disk])
    uri, terms = named(bench), CopyTerms(disks=(disk,))
    await bench.source.migrate(machine.vm_id, uri, machine.devices, lambda _: None, terms)
    await bench.destination.resume(machine.vm_id)
    assert await bench.has_disk(machine, there=True)


async def test_who_has_no_certificate_reads_and_writes_no_disk(bench: QemuBench) -> None:
    """Whoever is on the underlay may reach its port."""
    machine, begun = Machine(memory_mib=1024), asyncio.Event()
    disk = await bench.make_disk(machine)
    await bench.create(machine)
    await bench.copy_slowly(machine.vm_id)
    await bench.destination.make_way(machine.vm_id, [disk])
    copy = asyncio.create_task(
        bench.source.migrate(
            machine.vm_id,
            named(bench),
            machine.devices,
            lambda now: begun.set() if now.iteration else None,
            CopyTerms(disks=(disk,)),
        )
    )
    await first_of(begun.wait(), asyncio.wait({copy}))
    async with at_hand(Homes(bench.roots[0]).of(machine.vm_id).file("hand"), machine.vm_id) as m:
        nodes = await m.execute("query-named-block-nodes", flat=True)
    (there,) = (n["image"]["filename"] for n in nodes if n["node-name"] == "copy0")
    (port,) = re.findall(r"127\.0\.0\.1:(\d+)", there)
    info = ["qemu-img", "info", f"nbd://127.0.0.1:{port}/disk0"]
    told = await asyncio.to_thread(shell.run, info, check=False)
    assert "TLS" in told, told
    copy.cancel()
    await asyncio.wait({copy})


@pytest.mark.parametrize("wrong", ["", f"#{dns_name('local', Caller(Role.VSERVER, 'host-c'))}"])
async def test_nobody_else_gets_it(bench: QemuBench, wrong: str) -> None:
    """One who speaks in clear, or has not the certificate of the host that was meant."""
    machine = Machine()
    with pytest.raises(Refusal):
        await copy(bench, machine, bench.destination_uri + wrong)
    found = await bench.source.get(machine.vm_id)
    assert found is not None and found.state.value == "running"


async def test_a_host_that_speaks_in_clear_sends_nothing_to_one_that_does_not(
    netns: str, sides: list[Secrecy]
) -> None:
    async with qemu_bench(netns, [Clear(), sides[1]].__getitem__) as bench:
        with pytest.raises(Refusal, match="encrypted"):
            await copy(bench, Machine(), named(bench))


async def test_a_qemu_that_waits_hears_nobody_without_a_certificate(
    bench: QemuBench, sides: list[Secrecy]
) -> None:
    """Whoever is on the underlay may reach its port."""
    machine = Machine()
    await bench.create(machine)
    await bench.destination.make_way(machine.vm_id)
    home = Homes(bench.roots[0]).of(machine.vm_id)
    launch = home.launch()
    assert launch is not None
    address = Address.parse(named(bench))
    line = await Line.connect(address, sides[0].dial(address))
    definition = launch.definition.model_dump_json()
    answer = await line.ask(
        PATIENCE, take=launch.model_dump_json(), next=definition, devices=machine.devices
    )
    async with at_hand(home.file("hand"), machine.vm_id) as monitor:
        events = [{"capability": "events", "state": True}]
        await monitor.execute("migrate-set-capabilities", capabilities=events)
        await monitor.execute("migrate", uri=address.memory_uri(answer["port"]))
        async for event in monitor.events():
            if event["event"] == "MIGRATION" and event["data"]["status"] in ("failed", "completed"):
                break  # "completed", if all of it fitted into buffers before it was hung up on
    there = Homes(bench.roots[1]).of(machine.vm_id)
    async with at_hand(there.file("hand"), machine.vm_id) as monitor:
        for _ in range(20):
            assert await monitor.status() == "inmigrate", "it takes what was said in clear"
            await asyncio.sleep(0.1)
    line.close()


@pytest.mark.parametrize("who", ["tenant/blue", "operator/eve/admin", "a stranger"])
async def test_a_line_hears_agents_only(bench: QemuBench, tmp_path: Path, who: str) -> None:
    bundle = CA.bundle(who) if who != "a stranger" else Ca().bundle("vserver/host-a")
    address = Address.parse(named(bench))
    stranger = encrypted(tmp_path / "stranger", bundle).dial(address)
    stranger.verify_mode = ssl.CERT_REQUIRED
    stranger.load_verify_locations(cadata=CA.authority.pem.decode())
    line = await Line.connect(address, stranger)
    with pytest.raises(TimeoutError):
        await line.ask(PATIENCE, give_up=Machine().vm_id)
    line.close()
