"""The agent is not root where it need not be: with CAP_NET_ADMIN alone it guards real ports, and
with nothing at all it serves where nothing real is to be guarded."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.pb.vsignal.v1 import directory_pb2
from deploy.lab import netns, shell
from deploy.lab.capture import Capture
from tests.support.lab import Lab, running_lab
from tests.support.nouns import by_id, ip, mac, vm_id
from tests.support.unprivileged import NOBODY
from vserver.privileges import NET_ADMIN

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
TAPS = {"vnet0": "g0", "vnet1": "g1"}  # as the `memory` host calls them, and their guests' ends


@pytest.fixture
def spaces(hosts_available: None) -> Iterator[tuple[str, str]]:
    """A host with two taps, and where the guests behind them are."""
    run = f"vsu{secrets.token_hex(3)}"
    host, guests = f"{run}h", f"{run}g"
    netns.create(host)
    netns.create(guests)
    try:
        for tap, end in TAPS.items():
            shell.run(
                ["ip", "-n", host, "link", "add", tap, "type", "veth"]
                + ["peer", "name", end, "netns", guests]
            )
            shell.run(["ip", "-n", host, "link", "set", tap, "up"])
            shell.run(["ip", "-n", guests, "link", "set", end, "up"])
        yield host, guests
    finally:
        netns.remove([host, guests])


@asynccontextmanager
async def agent(
    lab: Lab, folder: Path, network: str, space: str, *capabilities: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """What it needs is nobody's: a folder, and the vCenter's socket."""
    for path, mode in ((lab.folder, 0o711), (lab.folder / "vcenter.sock", 0o666)):
        path.chmod(mode)
    state = lab.folder / "state"
    state.mkdir(mode=0o700)
    shell.run(["chown", str(NOBODY), str(state)])
    config = folder / "vserver.toml"
    config.write_text(
        f'server_id = "host-1"\nmanagement_address = "192.0.2.1"\nvtep_address = "192.0.2.1"\n'
        f'vcenter = ["unix:{lab.folder}/vcenter.sock"]\nplaintext = true\n'
        f'state_dir = "{state}"\nhypervisor = "memory"\nnetwork = "{network}"\n'
    )
    words = [sys.executable, "-m", "tests.support.unprivileged", str(config)]
    argv = shell.inside(space, [*words, *map(str, capabilities)])
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        assert await process.wait() == 0


async def applied(lab: Lab, number: int) -> bool:
    """Whether the policy that the VM shall have was read back on its host."""
    request = directory_pb2.ListVmsRequest()
    known = await lab.operator.directory.ListVms(request)
    if vm_id(number) not in {record.vm.vm_id for record in known.records}:
        return False
    vm = await lab.operator.directory.GetVm(directory_pb2.GetVmRequest(key=by_id(number)))
    return bool(vm.record.profile_hash) and vm.status.applied_hash == vm.record.profile_hash


async def until_applied(lab: Lab, agent: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(WITHIN_S):
        while agent.returncode is None:
            if await applied(lab, 1) and await applied(lab, 2):
                return
            await asyncio.sleep(0.1)
    raise AssertionError(f"the agent has ended with {agent.returncode}")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def asks(number: int, claimed: str) -> bytes:
    """An ARP request of VM `number`, from a MAC that it claims."""
    sender = bytes.fromhex(claimed.replace(":", ""))
    head = b"\xff" * 6 + sender + b"\x08\x06" + bytes.fromhex("0001080006040001")
    return head + sender + socket.inet_aton(ip(number)) + bytes(6) + socket.inet_aton(ip(9))


def say(space: str, interface: str, frame: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((interface, 0))
            wire.send(frame)

    netns.call_in(space, send)


async def heard(capture: Capture, frame: bytes, within: float) -> bool:
    for _ in range(int(within / 0.05)):
        if any(seen.raw == frame for seen in capture.frames):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_with_one_capability_it_guards_real_ports(
    spaces: tuple[str, str], tmp_path: Path
) -> None:
    host, guests = spaces
    async with running_lab(clock=SystemClock()) as lab:
        async with agent(lab, tmp_path, "linux", host, NET_ADMIN.bit) as running:
            await until_applied(lab, running)
            seen = status(running.pid)
            assert set(seen["Uid"].split()) == {str(NOBODY)} and seen["NoNewPrivs"] == "1"
            for held in ("CapPrm", "CapEff", "CapBnd"):
                assert int(seen[held], 16) == 1 << NET_ADMIN.bit
            with Capture(guests, "g1") as other:
                stolen, own = asks(1, mac(7)), asks(1, mac(1))
                say(guests, "g0", stolen)
                say(guests, "g0", own)
                assert await heard(other, own, WITHIN_S), "its own address passes"
                assert stolen not in [frame.raw for frame in other.frames]
        with Capture(guests, "g1") as other:  # the agent has ended; its rules have not
            say(guests, "g0", stolen)
            say(guests, "g0", own)
            assert await heard(other, own, WITHIN_S)
            assert stolen not in [frame.raw for frame in other.frames]


async def test_with_none_it_serves_where_nothing_is_real(
    spaces: tuple[str, str], tmp_path: Path
) -> None:
    async with (
        running_lab(clock=SystemClock()) as lab,
        agent(lab, tmp_path, "memory", spaces[0]) as running,
    ):
        await until_applied(lab, running)
        assert int(status(running.pid)["CapEff"], 16) == 0
