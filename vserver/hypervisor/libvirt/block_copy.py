"""libvirt's block copies for a standby, in worker threads: plain functions of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from common.errors import Reason, Refusal
from common.model.disk import Disk
from vserver.hypervisor.libvirt.copy_plan import disk_targets
from vserver.hypervisor.libvirt.domains import find
from vserver.hypervisor.libvirt.failures import has_code
from vserver.hypervisor.metadata import parse
from vserver.hypervisor.sender import Target
from vserver.hypervisor.standby import Mirrored

# It is never finished: should libvirtd forget it, the guest has its own disks. SYNCHRONOUS: a write
# is over only when both have it.
_FLAGS = (
    libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
    | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES
)


def begin(conn: Any, vm_id: str, to: Target, disks: Sequence[Disk]) -> str:
    """The domain's definition. Exports are numbered as `disks` are."""
    end(conn, vm_id)
    domain = find(conn, vm_id)
    if domain is None or domain.isActive() == 0:
        raise _refused(f"VM {vm_id} does not run here")
    known = disk_targets(domain.XMLDesc(), disks)
    try:
        for number, target in enumerate(known):
            domain.blockCopy(target, _target_xml(to, number), {}, _FLAGS)
    except BaseException:
        with suppress(libvirt.libvirtError):
            end(conn, vm_id)
        raise
    return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def seen(conn: Any, vm_id: str) -> Mirrored | None:
    domain = find(conn, vm_id)
    if domain is None or domain.isActive() == 0:
        return None
    mirrors = _mirrors(domain)
    if not mirrors:
        raise _refused("the disks are not mirrored any more")
    jobs = [domain.blockJobInfo(target, 0) for target in mirrors]
    if not all(jobs):
        raise _refused("the copy of a disk has ended")
    ready = all(mirror.get("ready") == "yes" for mirror in mirrors.values())
    return Mirrored(sum(j["end"] for j in jobs), sum(j["cur"] for j in jobs), ready)


def end(conn: Any, vm_id: str) -> None:
    """Nothing is mirrored any more."""
    domain = find(conn, vm_id)
    if domain is None or domain.isActive() == 0:
        return
    for target in _mirrors(domain):
        try:
            domain.blockJobAbort(target, 0)
        except libvirt.libvirtError as error:  # it has just ended by itself
            if not has_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INVALID_ARG):
                raise


def is_defined(conn: Any, vm_id: str) -> bool:
    return find(conn, vm_id) is not None


def define(conn: Any, vm_id: str, xml: str) -> None:
    """What is defined already stays as it is."""
    if find(conn, vm_id) is not None:
        return
    if parse(xml).findtext("uuid") != vm_id:
        raise _refused(f"that is not the definition of VM {vm_id}")
    conn.defineXML(xml)


def _mirrors(domain: Any) -> dict[str, ET.Element]:
    """By libvirt's name of the disk."""
    found = {}
    for disk in parse(domain.XMLDesc()).iterfind("devices/disk"):
        mirror, target = disk.find("mirror"), disk.find("target")
        if mirror is not None and target is not None:
            found[target.get("dev", "")] = mirror
    return found


def _target_xml(to: Target, number: int) -> str:
    root = ET.Element("disk", type="network", device="disk")
    ET.SubElement(root, "driver", name="qemu", type="raw")
    source = ET.SubElement(root, "source", protocol="nbd", name=f"disk{number}")
    if to.name:
        source.set("tls", "yes")
        source.set("tlsHostname", to.name)
    ET.SubElement(source, "host", name=to.host, port=str(to.port))
    return ET.tostring(root, encoding="unicode")


def _refused(text: str) -> Refusal:
    return Refusal(Reason.HYPERVISOR_FAILED, text)
