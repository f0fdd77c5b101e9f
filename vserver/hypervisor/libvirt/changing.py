"""Changing domains, in worker threads: resume, discard, abort."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import libvirt

from common.errors import Reason, Refusal
from common.model.vm import VmState
from vserver.hypervisor.libvirt import marker
from vserver.hypervisor.libvirt.domains import find, is_leaving, look
from vserver.hypervisor.libvirt.failures import has_code
from vserver.hypervisor.libvirt.states import Seen, vm_state

_MARK = libvirt.VIR_DOMAIN_METADATA_ELEMENT
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_NOBODYS = "urn:vsignal:nobodys"  # no domain has metadata of it
# What a definition owns besides itself. Not the NVRAM: on shared storage it is the moved VM's.
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
)


def resume(conn: Any, vm_id: str) -> None:
    """Every call before the guest runs is part of its blackout, so there are few.

    The mark goes first all the same: what bears it may be discarded, and what has run may not.
    """
    domain = find(conn, vm_id)
    if domain is None:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"there is no VM {vm_id} here")
    state, reason = domain.state()
    mark = _mark(domain)
    if mark and Seen(state, reason, active=True, marked=True).arriving:
        raise Refusal(Reason.HYPERVISOR_FAILED, "the VM's memory is still arriving")
    if mark:
        domain.setMetadata(_MARK, None, None, marker.NAMESPACE, _LIVE)
    if state not in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
        domain.resume()
    if mark and marker.wants_autostart(mark):
        domain.setAutostart(1)


def settle(conn: Any, vm_id: str) -> None:
    """What a VM that came through the gate, and runs, is still owed: what its mark remembers."""
    domain = find(conn, vm_id)
    if domain is not None and (mark := _mark(domain)):
        if marker.wants_autostart(mark):
            domain.setAutostart(1)
        domain.setMetadata(_MARK, None, None, marker.NAMESPACE, _LIVE)


def end(conn: Any, vm_id: str) -> None:
    """Whatever stands here is over: it is held, and runs elsewhere."""
    domain = find(conn, vm_id)
    if domain is not None:
        _unless_gone(domain.destroy)
        discard(conn, vm_id)


def discard(conn: Any, vm_id: str) -> None:
    """Only what has never run here, or does not run."""
    domain = find(conn, vm_id)
    if domain is None:
        return
    seen, _ = look(domain)
    state = vm_state(seen)
    if state is VmState.INCOMING:
        _unless_gone(domain.destroy)
    elif state is not VmState.SHUT_OFF:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"the VM is {state} here; it is not discarded")
    if find(conn, vm_id) is not None and domain.isPersistent():
        _unless_gone(lambda: domain.undefineFlags(_UNDEFINE))


class Leaving(Enum):
    GONE = auto()
    STAYS = auto()
    LEAVES = auto()


def stop_leaving(conn: Any, vm_id: str, tell: bool) -> Leaving:
    """Whether a copy is under way from here; one that is, is told to end if `tell`. libvirt heeds
    that from the copy's first step on, also before it has reached the destination. A domain that is
    off has no jobs to be seen: a change that changes nothing waits until it has been handed over.
    """
    domain = find(conn, vm_id)
    if domain is None:
        return Leaving.GONE
    if domain.isActive() != 1:
        _unless_gone(lambda: domain.setMetadata(_MARK, None, None, _NOBODYS, _CONFIG))
        return Leaving.STAYS if find(conn, vm_id) is not None else Leaving.GONE
    if is_leaving(domain):
        if tell:
            abort(conn, vm_id)
        return Leaving.LEAVES
    return Leaving.LEAVES if abort(conn, vm_id) else Leaving.STAYS


def abort(conn: Any, vm_id: str) -> bool:
    """Whether there was something to stop; libvirt calls it an invalid operation otherwise. Waits
    its turn for the domain, like everything that changes it."""
    domain = find(conn, vm_id)
    if domain is None:
        return False
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if not has_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return False
    return True


def _mark(domain: Any) -> str:
    try:
        return str(domain.metadata(_MARK, marker.NAMESPACE, _LIVE))
    except libvirt.libvirtError as error:
        missing = (libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_OPERATION_INVALID)
        if has_code(error, *missing):
            return ""
        raise


def _unless_gone(change: Any) -> None:
    gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
    try:
        change()
    except libvirt.libvirtError as error:
        if not has_code(error, *gone):
            raise
