"""Reading domains, in worker threads: plain functions of a libvirt connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import libvirt

from vserver.hypervisor.libvirt.failures import has_code
from vserver.hypervisor.libvirt.marker import is_marked
from vserver.hypervisor.libvirt.states import Seen, vm_state
from vserver.hypervisor.metadata import AttachmentRules, read_domain
from vserver.hypervisor.port import HostedVm

_GONE = (libvirt.VIR_ERR_NO_DOMAIN,)


def find(conn: Any, vm_id: str) -> Any | None:
    """The domain, or None if there is none; any other failure is raised."""
    try:
        return conn.lookupByUUIDString(vm_id)
    except libvirt.libvirtError as error:
        if has_code(error, *_GONE):
            return None
        raise


def read_all(conn: Any, rules: AttachmentRules) -> Sequence[HostedVm]:
    """Every domain; one that vanishes meanwhile is left out."""
    found = (read(domain, rules) for domain in conn.listAllDomains())
    return [hosted for hosted in found if hosted is not None]


def running(conn: Any) -> list[str]:
    """The vm_ids of those whose guest is not paused."""
    found = conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)
    return [domain.UUIDString() for domain in found]


def read_one(conn: Any, vm_id: str, rules: AttachmentRules) -> HostedVm | None:
    domain = find(conn, vm_id)
    return None if domain is None else read(domain, rules)


def read(domain: Any, rules: AttachmentRules) -> HostedVm | None:
    try:
        seen, xml = look(domain)
    except libvirt.libvirtError as error:
        if has_code(error, *_GONE):
            return None
        raise
    description = read_domain(xml, rules, active=seen.active)
    return HostedVm(
        description.vm, vm_state(seen), description.taps, description.problem, description.disks
    )


def look(domain: Any) -> tuple[Seen, str]:
    """State and XML. The two are not read at one moment; the change between them is an event."""
    state, reason = domain.state()
    xml = domain.XMLDesc()
    seen = Seen(state, reason, domain.isActive() == 1, is_marked(xml))
    if seen.arriving and not seen.marked:
        seen = seen._replace(incoming_job=_is_incoming(domain))
    return seen, xml


def is_active(conn: Any, vm_id: str) -> bool:
    domain = find(conn, vm_id)
    return domain is not None and domain.isActive() == 1


def shut_down(conn: Any, vm_id: str) -> bool:
    """By its guest: libvirt has other reasons for a domain that was migrated, killed or crashed,
    and none for what it does not know, such as how things ended before its own restart."""
    domain = find(conn, vm_id)
    if domain is None:
        return False
    reason = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
    return domain.isActive() == 0 and tuple(domain.state()) == reason


def is_leaving(domain: Any) -> bool:
    """From the moment when libvirt begins with a copy, until it is through with that."""
    return bool(_job(domain) == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)


def _is_incoming(domain: Any) -> bool:
    """Somebody moves it here by hand: then it bears no mark, but libvirt has a job for it."""
    try:
        return bool(_job(domain) == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN)
    except libvirt.libvirtError:
        return False


def _job(domain: Any) -> int | None:
    """One of libvirt's VIR_DOMAIN_JOB_OPERATION_ numbers; None: no job, or nothing that has one."""
    try:
        operation = domain.jobStats().get("operation")
    except libvirt.libvirtError as error:
        if has_code(error, libvirt.VIR_ERR_OPERATION_INVALID, *_GONE):
            return None
        raise
    return int(operation) if operation is not None else None
