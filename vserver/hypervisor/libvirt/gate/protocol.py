"""What libvirtd's `lockd` plugin says to a lock manager, in libvirt's own RPC framing.

A frame is its length (with these four bytes), six words (program, version, procedure, type, serial,
status) and the procedure's arguments in XDR (RFC 4506); see libvirt's lock_protocol.x and
virnetprotocol.x. Only REGISTER's arguments matter here: they say whose CPUs are meant. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

PROGRAM, VERSION = 0xEA7BEEF, 1
LARGEST = 64 * 1024  # a frame of the plugin is a few hundred bytes
_CALL, _REPLY = 0, 1
_OK, _ERROR = 0, 1
_HEADER = struct.Struct(">IIiIII")
_LENGTH = struct.Struct(">I")
_UUID_AND_NAME = 16 + 4
_ERR_OPERATION_DENIED, _FROM_LOCKING, _LEVEL_ERROR = 29, 49, 2


class Procedure(IntEnum):
    REGISTER = 1
    RESTRICT = 2
    NEW = 3
    CREATE_RESOURCE = 4
    DELETE_RESOURCE = 5
    ACQUIRE_RESOURCE = 6
    RELEASE_RESOURCE = 7
    CREATE_LOCKSPACE = 8


class ProtocolError(Exception):
    """Whoever speaks here is not libvirt's lockd plugin."""


@dataclass(frozen=True, slots=True)
class Call:
    """`vm_id` and `pid`, of the guest and its QEMU, are said by REGISTER only."""

    procedure: Procedure
    serial: int
    vm_id: str = ""
    pid: int = 0


def body_size(head: bytes) -> int:
    """How much follows the frame's first four bytes."""
    (size,) = _LENGTH.unpack(head)
    if not _LENGTH.size + _HEADER.size <= size <= LARGEST:
        raise ProtocolError(f"a frame of {size} bytes")
    return int(size) - _LENGTH.size


def read_call(body: bytes) -> Call:
    program, version, number, kind, serial, _ = _HEADER.unpack_from(body)
    if (program, version, kind) != (PROGRAM, VERSION, _CALL):
        raise ProtocolError(f"program {program:#x}, version {version}, type {kind}")
    try:
        procedure = Procedure(number)
        if procedure is not Procedure.REGISTER:
            return Call(procedure, serial)
        vm_id, pid = _owner(body[_HEADER.size :])
    except (ValueError, struct.error) as error:
        raise ProtocolError(f"procedure {number}: {error}") from error
    return Call(procedure, serial, vm_id, pid)


def _owner(arguments: bytes) -> tuple[str, int]:
    """opaque uuid[16], string name, unsigned id, unsigned pid, then flags."""
    uuid = UUID(bytes=arguments[:16])
    (length,) = _LENGTH.unpack_from(arguments, 16)
    padded = (length + 3) // 4 * 4
    _, pid = struct.unpack_from(">II", arguments, _UUID_AND_NAME + padded)
    return str(uuid), pid


def register(vm_id: UUID, name: str) -> bytes:
    """The plugin's question, whether this VM may run, on behalf of no process."""
    raw = name.encode()
    owner = vm_id.bytes + struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)
    head = _HEADER.pack(PROGRAM, VERSION, Procedure.REGISTER, _CALL, 1, _OK)
    payload = owner + struct.pack(">III", 0, 0, 0)  # id, pid, flags
    return _LENGTH.pack(_LENGTH.size + len(head) + len(payload)) + head + payload


def is_granted(body: bytes) -> bool:
    """Of a reply, after its length."""
    program, version, _, kind, _, status = _HEADER.unpack_from(body)
    return (program, version, kind, status) == (PROGRAM, VERSION, _REPLY, _OK)


def granted(call: Call) -> bytes:
    return _frame(call, _OK, b"")


def denied(call: Call, why: str) -> bytes:
    """A virNetMessageError: libvirt says the text to whoever asked for the guest to run."""
    fields = (
        struct.pack(">ii", _ERR_OPERATION_DENIED, _FROM_LOCKING),
        _text(why),
        struct.pack(">i", _LEVEL_ERROR),
        bytes(4),  # no domain
        _text(why),
        bytes(4) * 2,  # str2, str3
        struct.pack(">ii", 0, 0),
        bytes(4),  # no network
    )
    return _frame(call, _ERROR, b"".join(fields))


def _text(text: str) -> bytes:
    """An optional string that is there."""
    raw = text.encode()[:1000]
    return struct.pack(">II", 1, len(raw)) + raw + bytes(-len(raw) % 4)


def _frame(call: Call, status: int, payload: bytes) -> bytes:
    head = _HEADER.pack(PROGRAM, VERSION, call.procedure, _REPLY, call.serial, status)
    return _LENGTH.pack(_LENGTH.size + len(head) + len(payload)) + head + payload
