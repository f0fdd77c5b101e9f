"""What libvirt is asked for when a VM is copied, in worker threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urldefrag, urlsplit

import libvirt

from common.errors import Reason, Refusal
from common.model.budget import IfOver
from common.model.disk import Disk
from common.model.operation import MoveKind
from vserver.hypervisor.domain_disks import based, targets
from vserver.hypervisor.libvirt.domains import find
from vserver.hypervisor.libvirt.marker import destination_xml, mark_of
from vserver.hypervisor.metadata import parse
from vserver.hypervisor.port import CopyTerms

_FLAGS = libvirt.VIR_MIGRATE_PEER2PEER
# Without LIVE libvirt stops the guest before the copy, and lets it run on if that fails.
_OF_KIND = {
    MoveKind.LIVE: libvirt.VIR_MIGRATE_LIVE,
    MoveKind.SUSPEND: 0,
}
_KEEP_DEFINITION = libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
_COPYABLE = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
_RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a copy goes, and how. `encrypt`: by TLS or not at all. `terms.gated`: both hosts' gates
    keep the guest until the ledger has spoken, so that libvirt need not leave it paused over there.
    """

    destination: str
    devices: Mapping[str, str]
    terms: CopyTerms
    encrypt: bool


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """One copy, ready to go, with what must be put back if it fails."""

    vm_id: str
    name: str
    destination: str
    parameters: Mapping[str, Any]
    flags: int
    max_downtime: int
    autostart: bool
    terms: CopyTerms

    def carry_out(self, conn: Any) -> None:
        """Blocks until libvirt is through with it, the source's end included.

        Autostart would bring the source's definition to life if this host lost power between the
        end of its QEMU and of its definition; so it is turned off first, and travels in the mark.
        """
        domain = conn.lookupByUUIDString(self.vm_id)
        domain.migrateSetMaxDowntime(self.terms.budget.allowed_ms(0))
        if self.autostart:
            domain.setAutostart(0)
        domain.migrateToURI3(self.destination, self.parameters, self.flags)

    def restore(self, conn: Any) -> None:
        """After a failure: the VM is as it was."""
        domain = conn.lookupByUUIDString(self.vm_id)
        with suppress(libvirt.libvirtError):
            domain.migrateSetMaxDowntime(self.max_downtime)
        if self.autostart:
            domain.setAutostart(1)


def prepare(conn: Any, vm_id: str, way: Way) -> CopyPlan:
    """Look up everything that the copy needs; nothing is changed yet."""
    destination, peer = urldefrag(way.destination)
    if way.encrypt and not peer:
        text = f"{destination} takes no encrypted migration, and this host sends no other"
        raise Refusal(Reason.HYPERVISOR_FAILED, text)
    domain = find(conn, vm_id)
    if domain is None or domain.state()[0] not in _RUNNING:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"VM {vm_id} does not run here")
    limit = domain.migrateGetMaxDowntime()
    if limit is None:  # it has just ended; the binding says so instead of raising
        raise Refusal(Reason.HYPERVISOR_FAILED, f"VM {vm_id} does not run here any more")
    persistent = domain.isPersistent() == 1
    autostart = persistent and domain.autostart() == 1
    terms = way.terms
    mark = mark_of(autostart=autostart, gated=terms.gated)
    source_xml = domain.XMLDesc(_COPYABLE)
    xml = destination_xml(source_xml, way.devices, mark)
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: data_uri(destination),
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml,
    }
    flags = _FLAGS | _OF_KIND[terms.kind] | (_KEEP_DEFINITION if persistent else 0)
    flags |= 0 if terms.gated else libvirt.VIR_MIGRATE_PAUSED
    if terms.kind is MoveKind.LIVE and terms.budget.if_over is IfOver.SLOW:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if terms.disks:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = disk_targets(source_xml, terms.disks)
    if way.encrypt:  # QEMU then demands a certificate with the peer's name, and shows its own
        flags |= libvirt.VIR_MIGRATE_TLS
        parameters[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = peer
    return CopyPlan(
        vm_id=vm_id,
        name=domain.name(),
        destination=destination,
        parameters=parameters,
        flags=flags,
        max_downtime=limit,
        autostart=autostart,
        terms=terms,
    )


def disk_targets(xml: str, disks: Sequence[Disk]) -> list[str]:
    """What libvirt calls the disks that are to be copied: all that there are."""
    root = parse(xml)
    known = targets(root)
    if sorted(known) != sorted(disk.path for disk in disks):
        text = f"the VM's disks are {', '.join(known) or 'none'}; look, and move it again"
        raise Refusal(Reason.HYPERVISOR_FAILED, text)
    if on_others := based(root):
        text = f"{on_others[0]} holds only what differs from another file; flatten it first"
        raise Refusal(Reason.HYPERVISOR_FAILED, text)
    return list(known.values())


def data_uri(destination: str) -> str:
    """Memory goes straight from QEMU to QEMU, to the host that the peer's URI names."""
    host = urlsplit(destination).hostname
    if not host:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"no host in the migration URI {destination!r}")
    return f"tcp://[{host}]" if ":" in host else f"tcp://{host}"
