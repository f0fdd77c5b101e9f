"""libvirt's states as ours. Pure."""

from __future__ import annotations

from typing import NamedTuple

import libvirt

from common.model.vm import VmState

_ARRIVING = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
_OFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)
_HELD = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED, libvirt.VIR_DOMAIN_CRASHED)


class Seen(NamedTuple):
    """What libvirt says of a domain. `marked`: it carries our mark of a copy not yet started."""

    state: int
    reason: int
    active: bool
    marked: bool
    incoming_job: bool = False

    @property
    def arriving(self) -> bool:
        """Paused for the sake of a migration, on either side of it, or just being started."""
        return self.state == libvirt.VIR_DOMAIN_PAUSED and self.reason in _ARRIVING


def vm_state(seen: Seen) -> VmState:
    """A domain that crashed and is kept for inspection still has a process, so it is not off."""
    if not seen.active and seen.state in _OFF:
        return VmState.SHUT_OFF
    if seen.state == libvirt.VIR_DOMAIN_PAUSED and (seen.marked or seen.incoming_job):
        return VmState.INCOMING
    return VmState.PAUSED if seen.state in _HELD else VmState.RUNNING
