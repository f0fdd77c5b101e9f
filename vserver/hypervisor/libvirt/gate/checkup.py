"""Whether the gate works on this host, for `vserver doctor`. It only looks and asks.

Blocking, for worker threads.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path
from uuid import UUID

from vserver.hypervisor.libvirt.gate import protocol

_PEER = struct.Struct("iII")  # SO_PEERCRED: pid, uid, gid
_ASKS_LOCKD = re.compile(r'^\s*lock_manager\s*=\s*"lockd"', re.M)
_WITHIN = 5.0  # seconds
_VIRTLOCKD = "virtlockd"

Said = tuple[str, bool, str]
"""What was looked at, whether it works, and what that means."""


def examine(run: Path) -> list[Said]:
    """`run`: where this libvirtd keeps its sockets."""
    return [_asks(run / "libvirt-sock"), _answers(run / "virtlockd-sock")]


def asks_lockd(text: str) -> bool:
    """By the text of a qemu.conf."""
    return _ASKS_LOCKD.search(text) is not None


def _asks(path: Path) -> Said:
    """By the configuration that libvirtd itself sees, which may be in a mount namespace."""
    name = "gate: libvirtd asks"
    try:
        with _connected(path) as line:
            sees = Path("/proc", str(_peer(line)), "root")
            conf = (sees / "etc/libvirt/qemu.conf").read_text()
    except OSError as error:
        return name, False, f"libvirtd's configuration cannot be read: {error}"
    if asks_lockd(conf):
        return name, True, 'lock_manager = "lockd" in qemu.conf, since its last start'
    return name, False, 'qemu.conf lacks lock_manager = "lockd": moves go without the gate'


def _answers(path: Path) -> Said:
    name = "gate: agent answers"
    try:
        with _connected(path) as line:
            who = Path(f"/proc/{_peer(line)}/comm").read_text().strip()
            if who == _VIRTLOCKD:
                return name, False, "virtlockd answers: stop and mask its socket and service"
            granted = _is_granted(line)
    except OSError as error:
        text = f"nobody answers at {path} ({error}): without the agent no guest starts"
        return name, False, text
    if not granted:
        return name, False, f"{who} answers at {path}, and not as a lock manager does"
    return name, True, f"{who} lets a guest run that no move concerns"


def _is_granted(line: socket.socket) -> bool:
    """Asks for a VM that nobody has."""
    try:
        line.sendall(protocol.register(UUID(int=0), "vsignal-doctor"))
        with line.makefile("rb") as replies:
            size = protocol.body_size(replies.read(4))
            return protocol.is_granted(replies.read(size))
    except (protocol.ProtocolError, struct.error, ConnectionError):
        return False  # whoever it is hangs up, or says something else


def _connected(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(_WITHIN)
    try:
        line.connect(os.fspath(path))
    except OSError:
        line.close()
        raise
    return line


def _peer(line: socket.socket) -> int:
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(raw)[0])
