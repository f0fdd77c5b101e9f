"""Disks of VMs that are off, between QEMU's own tools: what arrives, who is kept out, and how it
ends when it is called off, or its agent is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import Refusal
from common.model.caller import Caller, Role, dns_name
from deploy.lab import shell
from tests.contract import disk_images
from tests.contract.hypervisor_bench import PATIENCE
from tests.support.domain import Ca
from vserver.hypervisor import receiver, sender
from vserver.hypervisor.pki import publish
from vserver.hypervisor.receiver import Image, Receiver
from vserver.hypervisor.sender import Senders

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not (receiver.available() and sender.available()) and not os.environ.get("CI"),
        reason="QEMU's tools are not here",
    ),
]
VM = "6f1c4a52-0d0e-4a7c-9a51-000000000001"
HERE = "127.0.0.1"


def written(folder: Path) -> Image:
    """A comma in a path must not become an option."""
    file = folder / "a, b.qcow2"
    disk_images.make(file, file.name)
    return Image(0, file, "qcow2")


def empty(folder: Path) -> Image:
    file = folder / "there,too.qcow2"
    shell.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "64M"])
    return Image(0, file, "qcow2")


class Mute:
    """A host that takes connections and says nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener

    async def called(self) -> socket.socket:
        """By a sender, which has opened its image by then."""
        self._listener.settimeout(PATIENCE)
        return (await asyncio.to_thread(self._listener.accept))[0]


@pytest.fixture
def mute() -> Iterator[Mute]:
    with closing(socket.create_server((HERE, 0))) as listener:
        yield Mute(listener)


@pytest.fixture
async def taking(tmp_path: Path) -> AsyncIterator[list[Receiver]]:
    """They are ended after the test."""
    made: list[Receiver] = []
    yield made
    for each in made:
        await each.stop()


def is_free(image: Image) -> bool:
    """Whether a guest could be started on it."""
    said = shell.run(["qemu-io", "-c", "write 0 512", str(image.path)], check=False)
    return "wrote 512" in said


async def until_free(image: Image) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(is_free, image):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_an_image_arrives_as_it_is_and_its_share_is_told(
    tmp_path: Path, taking: list[Receiver]
) -> None:
    image, there, shares = written(tmp_path), empty(tmp_path), list[tuple[int, float]]()
    taking.append(Receiver(tmp_path / "receiver", HERE, None))
    port = await taking[0].serve([there])
    assert await taking[0].serve([there]) == port
    await Senders(None).send(VM, [image], f"x://{HERE}", port, lambda *s: shares.append(s))
    assert shares[-1] == (0, 1.0)
    assert not is_free(there), "it is taken until it is not"
    await taking[0].stop()
    assert is_free(there)
    assert disk_images.has(there.path)


async def test_by_tls_it_goes_to_whom_the_ledger_names_and_to_nobody_else(
    tmp_path: Path, taking: list[Receiver]
) -> None:
    ca, image, there = Ca(), written(tmp_path), empty(tmp_path)
    for name in ("host-a", "host-b"):
        publish(ca.bundle(f"vserver/{name}"), tmp_path / name)
    taking.append(Receiver(tmp_path / "receiver", HERE, tmp_path / "host-b"))
    port = await taking[0].serve([there])
    to = {name: dns_name("local", Caller(Role.VSERVER, name)) for name in ("host-b", "host-c")}
    senders = Senders(tmp_path / "host-a")
    for refused in (f"x://{HERE}#{to['host-c']}", f"x://{HERE}"):
        with pytest.raises(Refusal):
            await senders.send(VM, [image], refused, port, lambda *_: None)
    with pytest.raises(Refusal):  # in clear
        await Senders(None).send(VM, [image], f"x://{HERE}", port, lambda *_: None)
    await senders.send(VM, [image], f"x://{HERE}#{to['host-b']}", port, lambda *_: None)
    await taking[0].stop()
    assert disk_images.has(there.path)


async def test_what_is_called_off_ends_and_its_guest_may_be_started(
    tmp_path: Path, mute: Mute
) -> None:
    image, senders = written(tmp_path), Senders(None)
    senders.abort(VM)  # nothing under way is no error
    sending = asyncio.create_task(
        senders.send(VM, [image], f"x://{HERE}", mute.port, lambda *_: None)
    )
    with await mute.called():
        assert not is_free(image)
        senders.abort(VM)
        with pytest.raises(Refusal, match="called off"):
            await sending
    assert is_free(image)


_AGENT = """
import asyncio, sys
from pathlib import Path
from vserver.hypervisor.receiver import Image
from vserver.hypervisor.sender import Senders
image = Image(0, Path(sys.argv[1]), "qcow2")
port = int(sys.argv[2])
asyncio.run(Senders(None).send("vm", [image], "x://127.0.0.1", port, lambda *_: None))
"""


async def test_with_its_agent_it_ends_however_that_was_killed(tmp_path: Path, mute: Mute) -> None:
    """Else its guest could not be started here any more."""
    image = written(tmp_path)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _AGENT, str(image.path), str(mute.port)
    )
    try:
        connection = await mute.called()
    finally:
        agent.send_signal(signal.SIGKILL)
        await agent.wait()
    with connection:
        await until_free(image)


async def test_a_tool_that_fails_says_why(tmp_path: Path) -> None:
    image = written(tmp_path)
    shutil.move(image.path, tmp_path / "away")
    with pytest.raises(Refusal, match="No such file"):
        await Senders(None).send(VM, [image], f"x://{HERE}", 9, lambda *_: None)
