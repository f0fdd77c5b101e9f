"""What a domain's XML says of its VM: libvirt's own elements, and ours in `<metadata>`.

Pure. An operator wrote the metadata, so whatever is wrong with it becomes a `problem` for people,
and the VM is unassigned: its ports stay closed, the host goes on. The standard library's parser
suffices: the text comes from libvirtd, which we trust with far more than this, was parsed by
libxml2 before, and its size is bounded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree as ET

from common.model.disk import Disk
from common.model.identity import parse_vm_id
from common.model.vm import Interface, Resources, Vm
from vserver.hypervisor.assignment import VM_ELEMENT, Assignment, read_assignment
from vserver.hypervisor.domain_disks import own_disks
from vserver.hypervisor.port import Tap

_MAX_XML = 4 << 20
_MIB = 1 << 20
_BYTES = {"b": 1, "bytes": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"K": 1 << 10, "KiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20}
_BYTES |= {"G": 1 << 30, "GiB": 1 << 30, "T": 1 << 40, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True)
class Attachment:
    """What being plugged in somewhere means: the tenant's network behind a bridge."""

    tenant: str
    network: str = ""
    vni: int = 0


@dataclass(frozen=True, slots=True)
class Nic:
    """One `<interface>` as libvirt wrote it; "" where it has no such thing."""

    mac: str
    bridge: str = ""
    network: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class AttachmentRules:
    """The agent's configuration, for VMs that carry no metadata of ours."""

    bridges: Mapping[str, Attachment] = field(default_factory=dict)
    networks: Mapping[str, Attachment] = field(default_factory=dict)

    def find(self, nic: Nic) -> Attachment | None:
        """The libvirt network is the more specific of the two: several may share a bridge."""
        return self.networks.get(nic.network) or self.bridges.get(nic.bridge)


@dataclass(frozen=True, slots=True)
class Description:
    """A domain's XML, read. `problem` says what is wrong with the metadata."""

    vm: Vm
    taps: tuple[Tap, ...]
    problem: str = ""
    disks: tuple[Disk, ...] = ()


def read_domain(xml: str, rules: AttachmentRules, *, active: bool) -> Description:
    """The VM that this XML describes. `active`: the XML is a live one, so taps have names."""
    root = parse(xml)
    nics = [_nic(element) for element in root.iterfind("devices/interface")]
    plain = Vm(
        vm_id=parse_vm_id(root.findtext("uuid", "")),
        name=root.findtext("name", ""),
        interfaces=tuple(Interface(nic.mac) for nic in nics),
        resources=_resources(root),
    )
    taps = tuple(Tap(nic.mac, nic.bridge, nic.device if active else "") for nic in nics)
    ours = root.find(f"metadata/{VM_ELEMENT}")
    disks = own_disks(root)
    try:
        said = None if ours is None else read_assignment(ours, [nic.mac for nic in nics])
        return Description(assigned(plain, nics, said, rules), taps, disks=disks)
    except ValueError as error:
        return Description(plain, taps, str(error), disks)


def assigned(vm: Vm, nics: list[Nic], said: Assignment | None, rules: AttachmentRules) -> Vm:
    """The VM with its owner: by what its metadata says, or else by where it is plugged in."""
    return _by_rules(vm, nics, rules) if said is None else _by_us(vm, nics, said, rules)


def parse(xml: str) -> ET.Element:
    """The XML's root; a text that no domain needs is refused before it costs memory."""
    if len(xml) > _MAX_XML:
        raise ValueError(f"a domain's XML does not have {len(xml)} characters")
    return ET.fromstring(xml)


def _nic(element: ET.Element) -> Nic:
    """Kinds without a bridge (direct, vhost-user …) keep their place in the list."""
    attributes = {child.tag: child.attrib for child in element}
    source = attributes.get("source", {})
    return Nic(
        mac=attributes.get("mac", {}).get("address", "").lower(),
        bridge=source.get("bridge", ""),
        network=source.get("network", ""),
        device=attributes.get("target", {}).get("dev", ""),
    )


def _resources(root: ET.Element) -> Resources:
    vcpu, memory = root.find("vcpu"), root.find("memory")
    vcpus = 0 if vcpu is None else int(vcpu.get("current") or vcpu.text or 0)
    return Resources(vcpus, 0 if memory is None else _mib(memory))


def _mib(memory: ET.Element) -> int:
    return int(memory.text or 0) * _BYTES.get(memory.get("unit", ""), 1 << 10) // _MIB


def _by_us(vm: Vm, nics: list[Nic], said: Assignment, rules: AttachmentRules) -> Vm:
    """The metadata's word; what it leaves open of an interface is the configuration's."""
    interfaces = tuple(
        _completed(said.interfaces.get(nic.mac, Interface(nic.mac)), rules.find(nic), said.tenant)
        for nic in nics
    )
    return replace(vm, tenant=said.tenant, group=said.group, interfaces=interfaces)


def _by_rules(vm: Vm, nics: list[Nic], rules: AttachmentRules) -> Vm:
    found = [rules.find(nic) for nic in nics]
    tenants = sorted({attachment.tenant for attachment in found if attachment})
    if not tenants:
        return vm
    if len(tenants) > 1:
        raise ValueError(f"its interfaces are attached to networks of {', '.join(tenants)}")
    interfaces = tuple(
        _completed(interface, attachment, tenants[0])
        for interface, attachment in zip(vm.interfaces, found, strict=True)
    )
    return replace(vm, tenant=tenants[0], interfaces=interfaces)


def _completed(interface: Interface, attachment: Attachment | None, tenant: str) -> Interface:
    """Where two sources speak of an interface, they must at least mean the same tenant."""
    if attachment is None or attachment.tenant != tenant or interface.vni or interface.network:
        return interface
    return replace(interface, network=attachment.network, vni=attachment.vni)
