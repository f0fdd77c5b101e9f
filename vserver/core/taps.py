"""The name of a tap that does not exist yet.

A move's destination puts policy in force before QEMU makes the tap (I5), so both sides must know
the tap's name beforehand. It follows from the MAC alone: source and destination need not agree on
anything else.
"""

from __future__ import annotations

import hashlib

PREFIX = "vsp"  # short, because Linux limits a device's name to 15 characters


def incoming_device(mac: str) -> str:
    """The tap's name at the destination of a move."""
    return PREFIX + hashlib.sha256(mac.encode()).hexdigest()[:10]
