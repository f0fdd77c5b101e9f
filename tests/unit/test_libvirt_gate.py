"""The gate on real sockets: what libvirt's lockd plugin says, byte by byte, and what it is told."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from common.clock import SystemClock
from common.errors import Refusal
from vserver.hypervisor.libvirt.gate import checkup, protocol, server
from vserver.hypervisor.libvirt.gate.keeper import Keeper
from vserver.hypervisor.libvirt.gate.protocol import Procedure, ProtocolError

VM = "11111111-2222-4333-8444-555555555555"
OTHER = "11111111-2222-4333-8444-666666666666"
QEMU = 999_999  # nobody's pid here: libvirtd asks for a QEMU that is not itself
OK, ERROR = 0, 1


def call(procedure: int, arguments: bytes = b"", serial: int = 7) -> bytes:
    head = struct.pack(">IIiIII", protocol.PROGRAM, protocol.VERSION, procedure, 0, serial, 0)
    return struct.pack(">I", 4 + len(head) + len(arguments)) + head + arguments


def register(vm_id: str = VM, pid: int = QEMU, name: bytes = b"web-1") -> bytes:
    padded = name + bytes(-len(name) % 4)
    owner = UUID(vm_id).bytes + struct.pack(">I", len(name)) + padded
    return call(Procedure.REGISTER, owner + struct.pack(">III", 3, pid, 0))


class Plugin:
    """libvirtd's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, frame: bytes) -> tuple[int, bytes]:
        """Status, and what came with it; the serial is the question's."""
        self.writer.write(frame)
        (size,) = struct.unpack(">I", await self._reader.readexactly(4))
        body = await self._reader.readexactly(size - 4)
        _, _, _, kind, serial, status = struct.unpack_from(">IIiIII", body)
        assert (kind, serial) == (1, 7)
        return status, body[24:]

    async def is_cut(self) -> bool:
        return await self._reader.read(1) == b""


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run" / "virtlockd-sock"


@pytest.fixture
async def keeper(socket: Path, tmp_path: Path) -> AsyncIterator[Keeper]:
    running = Keeper(socket, tmp_path / "gate", SystemClock())
    await running.open()
    yield running
    await running.close()


@pytest.fixture
async def plugin(keeper: Keeper, socket: Path) -> AsyncIterator[Plugin]:
    talk = Plugin(*await asyncio.open_unix_connection(socket))
    yield talk
    talk.writer.close()


async def test_a_vm_that_no_move_concerns_runs_at_once(plugin: Plugin) -> None:
    assert await plugin.ask(register()) == (OK, b"")


@pytest.mark.parametrize("procedure", [p for p in Procedure if p is not Procedure.REGISTER])
async def test_disks_are_none_of_our_business(plugin: Plugin, procedure: Procedure) -> None:
    assert await plugin.ask(call(procedure, b"\0\0\0\0")) == (OK, b"")


async def test_what_arrives_waits_until_it_may_run(keeper: Keeper, plugin: Plugin) -> None:
    await keeper.gate.expect(VM)
    waiting = asyncio.ensure_future(plugin.ask(register()))
    assert not (await asyncio.wait({waiting}, timeout=0.05))[0]
    keeper.gate.let_run(VM)
    assert await waiting == (OK, b"")


async def test_a_qemu_that_is_only_being_made_may_be(keeper: Keeper, plugin: Plugin) -> None:
    """It asks from the process that becomes it; its CPUs are asked for later, by libvirtd."""
    await keeper.gate.expect(VM)
    assert await plugin.ask(register(pid=os.getpid())) == (OK, b"")


async def test_a_qemu_that_was_broken_out_of_says_nothing_of_other_guests(
    keeper: Keeper, plugin: Plugin
) -> None:
    """It has the connection on which the process that became it has asked."""
    await keeper.gate.arm(OTHER)
    assert await plugin.ask(register(pid=os.getpid())) == (OK, b"")
    plugin.writer.write(register(OTHER))
    assert await plugin.is_cut()
    assert not keeper.gate.shut(OTHER), "nobody who may has said that it stopped"


def test_the_socket_is_never_open_to_others(socket: Path) -> None:
    """Not even between being made and being restricted, whatever the umask is."""
    socket.parent.mkdir()
    before = os.umask(0)
    try:
        server._bound(socket).close()
    finally:
        os.umask(before)
    assert socket.stat().st_mode & 0o777 == 0o600


async def test_what_is_called_off_is_told_so(keeper: Keeper, plugin: Plugin) -> None:
    await keeper.gate.expect(VM)
    waiting = asyncio.ensure_future(plugin.ask(register()))
    await asyncio.wait({waiting}, timeout=0.05)
    keeper.gate.deny(VM)
    status, said = await waiting
    assert status == ERROR and VM.encode() in said
    assert (await plugin.ask(register()))[0] == ERROR, "and whoever asks again"
    assert await plugin.ask(register(OTHER)) == (OK, b"")


async def test_a_source_tells_once_that_it_stopped_and_is_held(
    keeper: Keeper, plugin: Plugin
) -> None:
    await keeper.gate.arm(VM)
    assert not keeper.gate.shut(VM), "nobody has said that it stopped"
    assert await plugin.ask(register()) == (OK, b"")
    assert keeper.gate.shut(VM) and keeper.gate.holds(VM)
    waiting = asyncio.ensure_future(plugin.ask(register()))
    assert not (await asyncio.wait({waiting}, timeout=0.05))[0], "it wants to run again"
    keeper.gate.let_run(VM)
    assert await waiting == (OK, b"")
    assert not keeper.gate.holds(VM)


async def test_a_guest_that_was_stopped_by_hand_meanwhile_is_not_called_held(
    keeper: Keeper, plugin: Plugin
) -> None:
    await keeper.gate.arm(VM)
    for _ in range(3):  # suspended, resumed, stopped
        assert await plugin.ask(register()) == (OK, b"")
    assert not keeper.gate.shut(VM)


async def test_a_new_agent_knows_what_was_held(
    keeper: Keeper, socket: Path, tmp_path: Path
) -> None:
    await keeper.gate.arm(VM)
    await keeper.gate.expect(OTHER)
    await keeper.close()
    after = Keeper(socket, tmp_path / "gate", SystemClock())
    await after.open()
    try:
        assert after.gate.holds(VM) and after.gate.expects(OTHER)
        await after.gate.forget(VM)
    finally:
        await after.close()
    assert [file.name for file in (tmp_path / "gate").iterdir()] == [OTHER]


async def test_a_note_of_another_boot_says_nothing(tmp_path: Path, socket: Path) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / VM).write_text("another-boot source")
    keeper = Keeper(socket, tmp_path / "gate", SystemClock())
    await keeper.open()
    await keeper.close()
    assert not keeper.gate.holds(VM)
    assert not list((tmp_path / "gate").iterdir())


async def test_what_is_to_come_is_held_after_another_boot(tmp_path: Path, socket: Path) -> None:
    """The guest runs at its source, which knows nothing of that boot, and may send it."""
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / VM).write_text("another-boot destination")
    (tmp_path / "gate" / f".{OTHER}.77").write_text("another-boot destination")  # half written
    keeper = Keeper(socket, tmp_path / "gate", SystemClock())
    await keeper.open()
    await keeper.close()
    assert keeper.gate.expects(VM) and not keeper.gate.holds(VM)
    assert [file.name for file in (tmp_path / "gate").iterdir()] == [VM]


async def test_another_lock_manager_is_left_alone(keeper: Keeper, socket: Path) -> None:
    second = Keeper(socket, socket.parent / "second", SystemClock())
    with pytest.raises(Refusal, match="mask virtlockd"):
        await second.open()
    _, writer = await asyncio.open_unix_connection(socket)  # the first one's
    writer.close()


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(64),
        struct.pack(">I", 5) + b"x",
        call(99),
        call(Procedure.REGISTER, b"short"),
        struct.pack(">IIIiIII", 28, 1, 1, 1, 0, 7, 0),
    ],
    ids=["another protocol", "too short", "unknown", "no owner", "another program"],
)
async def test_whoever_else_speaks_is_cut_off(plugin: Plugin, frame: bytes) -> None:
    plugin.writer.write(frame)
    assert await plugin.is_cut()


def test_a_frame_has_a_bound() -> None:
    with pytest.raises(ProtocolError):
        protocol.body_size(struct.pack(">I", protocol.LARGEST + 1))


# ---- the doctor ----


async def answers(socket: Path) -> tuple[bool, str]:
    _, (_, works, text) = await asyncio.to_thread(checkup.examine, socket.parent)
    return works, text


async def test_the_doctor_says_whether_the_gate_answers(socket: Path, tmp_path: Path) -> None:
    works, text = await answers(socket)
    assert not works and "nobody answers" in text
    running = Keeper(socket, tmp_path / "gate", SystemClock())
    await running.open()
    try:
        assert (await answers(socket))[0]
    finally:
        await running.close()
    assert not (await answers(socket))[0]


async def test_the_doctor_knows_a_stranger_at_the_gate(socket: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    socket.parent.mkdir()
    async with await asyncio.start_unix_server(hang_up, socket):
        works, text = await answers(socket)
    assert not works and "not as a lock manager" in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('lock_manager = "lockd"', True),
        (' lock_manager="lockd"  # the gate', True),
        ('#lock_manager = "lockd"', False),
        ('lock_manager = "sanlock"', False),
        ("", False),
    ],
)
def test_the_doctor_reads_whether_libvirt_asks(line: str, expected: bool) -> None:
    assert checkup.asks_lockd(f'user = "root"\n{line}\ngroup = "root"\n') is expected
