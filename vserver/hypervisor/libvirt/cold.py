"""Domains that are off: given to another host, started, and turned off; in worker threads."""

from __future__ import annotations

from typing import Any
from urllib.parse import urldefrag

import libvirt

from common.errors import Reason, Refusal
from vserver.hypervisor.libvirt.domains import find
from vserver.hypervisor.libvirt.failures import has_code

_FLAGS = (
    libvirt.VIR_MIGRATE_OFFLINE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
)


def hand_over(conn: Any, vm_id: str, destination: str) -> None:
    """libvirt defines it there and then undefines it here, and lets nobody start it in between."""
    refuse_if_bound(conn, vm_id).migrateToURI3(urldefrag(destination).url, {}, _FLAGS)


def refuse_if_bound(conn: Any, vm_id: str) -> Any:
    """The domain, if it can be handed over."""
    domain = find(conn, vm_id)
    if domain is None or domain.isActive() == 1:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"VM {vm_id} is not here, or not off")
    if domain.hasManagedSaveImage():
        text = f"VM {vm_id} has a saved state, which would stay behind: start it, or drop that"
        raise Refusal(Reason.HYPERVISOR_FAILED, text)
    return domain


def keeps(conn: Any, vm_id: str) -> bool:
    return find(conn, vm_id) is not None


def ask_off(conn: Any, vm_id: str) -> None:
    domain = find(conn, vm_id)
    if domain is None or domain.isActive() == 0:
        return
    try:
        domain.shutdown()
    except libvirt.libvirtError as error:  # it has just gone off
        if not has_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
            raise


def power_on(conn: Any, vm_id: str) -> None:
    domain = find(conn, vm_id)
    if domain is None:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"there is no VM {vm_id} here")
    if domain.isActive() == 0:
        domain.create()
