"""What a LookupRequest asks for, seen from its bytes where it is written as everybody writes it.

Parsing a message, checking its texts and making keys of them takes several times as long as finding
the VM. What is read here is only what a VM can be found by; whatever else it may be is for the
caller of these to read in full, and so is what nobody has, for it may be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcenter.core.packed import address_number, ip_bytes, mac_bytes

MAX_KEYS = 10_000
_VM_ID = "\n\x26\n\x24"  # LookupRequest.keys, 38 bytes: VmKey.vm_id, 36 bytes
_FIRST = _VM_ID.encode()
_KEYS, _MAC, _IP = 0x0A, 0x12, 0x1A  # LookupRequest.keys; VmKey.mac and VmKey.ip
_VNI, _TEXT = 0x08, 0x12  # of both


def vm_id(raw: bytes) -> str:
    """As `vm_ids`, where there is one; empty: there are others, or more."""
    return raw[4:].decode("latin-1") if len(raw) == 40 and raw.startswith(_FIRST) else ""


def vm_ids(raw: bytes) -> Sequence[str]:
    """The keys, where all of them are vm_ids of VMs that are there: the request is then their texts
    with one fixed text before each. Whatever else it may be, some piece of it is then no vm_id that
    is known."""
    if not raw.startswith(_FIRST):
        return ()
    nothing, *found = raw.decode("latin-1").split(_VM_ID)
    return found if not nothing and len(found) <= MAX_KEYS else ()


def address(raw: bytes) -> tuple[int, int] | None:
    """VNI and address number, where the one key is a MAC or an IPv4 address and each length is a
    byte."""
    size = len(raw)
    if not 10 < size < 128 or raw[0] != _KEYS or raw[1] != size - 2 or raw[3] != size - 4:
        return None
    try:
        return _numbers(raw, size)
    except (ValueError, KeyError, IndexError):
        return None


def _numbers(raw: bytes, size: int) -> tuple[int, int] | None:
    """As `address`; raises one of three errors where it is written otherwise."""
    vni, at = raw[5] & 127, 6
    while raw[at - 1] > 127:  # a number in sevens of bits, the lowest first
        vni |= (raw[at] & 127) << 7 * (at - 5)
        at += 1
    if raw[4] != _VNI or raw[at] != _TEXT or raw[at + 1] != size - at - 2:
        return None
    text = raw[at + 2 :].decode("ascii")
    if raw[2] == _MAC:
        plain = len(text) == 17 and text[2::3] == ":::::" and len(mac_bytes(text)) == 6
    else:
        plain = raw[2] == _IP and ":" not in text and len(ip_bytes(text)) == 4
    return (vni, address_number(text)) if plain else None
