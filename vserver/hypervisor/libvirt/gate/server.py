"""The socket that libvirtd's `lockd` plugin connects to, in virtlockd's place.

The plugin asks before a guest's CPUs start and tells after they have stopped, by the same call
(REGISTER, and a lock for each disk, which are not our business and granted). A QEMU that is just
being started asks too, from the process that becomes it; nothing of it runs yet, so it may.

Only root may connect. But that QEMU keeps its end of the connection, so that whoever breaks out of
a guest can speak on it: it is heard for as long as it says nothing of other guests.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from common import log
from common.errors import Reason, Refusal
from vserver.hypervisor.libvirt.gate import protocol
from vserver.hypervisor.libvirt.gate.protocol import Call, Procedure, ProtocolError

_PEER = struct.Struct("iII")  # SO_PEERCRED: pid, uid, gid
_log = log.get(__name__)

Asked = Callable[[str], Awaitable[str]]
"""What happens to a guest's CPUs: `vm_id` → "" to let it happen, else why not."""


class LockServer:
    def __init__(self, path: Path, asked: Asked) -> None:
        self._path = path
        self._asked = asked
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take the socket; raises `Refusal` if somebody answers there."""
        if await asyncio.to_thread(_answers, self._path):
            raise Refusal(
                Reason.HYPERVISOR_FAILED,
                f"another lock manager answers at {self._path}: stop and mask virtlockd.socket and "
                "virtlockd.service, or set libvirt.gate = false",
            )
        self._path.unlink(missing_ok=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._server = await asyncio.start_unix_server(self._talk, sock=_bound(self._path))

    async def close(self) -> None:
        """QEMUs keep an end of their connection; closing ours changes nothing for them."""
        if self._server is not None:
            self._server.close()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)
        self._path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            speaker = _Speaker(_peer_pid(writer))
            while True:
                call = protocol.read_call(await _frame(reader))
                why = "" if speaker.means_itself(call) else await self._asked(call.vm_id)
                writer.write(protocol.denied(call, why) if why else protocol.granted(call))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # libvirtd is through, or the QEMU that held the line has ended
        except ProtocolError as error:
            _log.warning("somebody else speaks at the gate", error=str(error))
        finally:
            self._talks.discard(task)
            writer.close()


class _Speaker:
    """Who is at the other end: libvirtd, or the process that becomes a QEMU, which is its own pid's
    owner from its first REGISTER on, and never libvirtd again."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._is_a_guests = False

    def means_itself(self, call: Call) -> bool:
        """Whether no CPU is asked for. Raises `ProtocolError` when a guest's QEMU asks."""
        if call.procedure is not Procedure.REGISTER:
            return True
        if call.pid == self._pid:
            self._is_a_guests = True
        elif self._is_a_guests:
            raise ProtocolError(f"QEMU {self._pid} speaks for VM {call.vm_id}, process {call.pid}")
        return call.pid == self._pid


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(protocol.body_size(await reader.readexactly(4)))


def _bound(path: Path) -> socket.socket:
    """Nobody else's from the moment that it is there."""
    listener = socket.socket(socket.AF_UNIX)
    os.fchmod(listener.fileno(), 0o600)
    try:
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    return listener


def _peer_pid(writer: asyncio.StreamWriter) -> int:
    raw = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size
    )
    return int(_PEER.unpack(raw)[0])


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True
