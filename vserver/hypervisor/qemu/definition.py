"""What a guest is: the file that `vserver guest define` takes, and what its metadata says.

Sizes are MiB. The metadata (tenant, group, and of each interface network, VNI and IPs) is read
strictly: a typing error must not open a port. `define` refuses it; in a file that was put there by
hand it becomes a `problem` for people, and the guest is unassigned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import uuid4

from pydantic import AfterValidator, Field, model_validator

from common.config import Section
from common.model.disk import Disk
from common.model.identity import parse_ip, parse_mac, parse_name, parse_vm_id, parse_vni
from common.model.vm import Interface, Resources, Vm
from vserver.hypervisor.assignment import Assignment
from vserver.hypervisor.metadata import AttachmentRules, Description, Nic, assigned
from vserver.hypervisor.port import Tap

MAX_VCPUS, MAX_MEMORY_MIB = 1024, 1 << 24


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"not an absolute path: {path}")
    return path


File = Annotated[Path, AfterValidator(_absolute)]

# A name that is none of those which the agent gives to its own files there.
OWN_DISK = r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}\.(?:qcow2|raw|img)"


def _disk_path(path: Path) -> Path:
    if path.is_absolute() or re.fullmatch(OWN_DISK, str(path)):
        return path
    raise ValueError(f"neither an absolute path nor a name like root.qcow2: {path}")


class NicSection(Section):
    """`[[interface]]`. The bridge `vsignal` is the agent's intake: it leads nowhere."""

    mac: Annotated[str, AfterValidator(parse_mac)]
    bridge: str = Field(default="vsignal", pattern=r"^[A-Za-z0-9_.-]{1,15}$")
    network: str = ""
    vni: int = 0
    ips: tuple[str, ...] = Field(default=(), max_length=256)


class DiskSection(Section):
    """`[[disk]]`. A name without a slash is a file in the guest's own folder, and is copied when
    the guest moves. With an absolute path it is on storage that the hosts share."""

    path: Annotated[Path, AfterValidator(_disk_path)]
    format: Literal["qcow2", "raw"] = "qcow2"
    read_only: bool = False

    @model_validator(mode="after")
    def _goes_along(self) -> Self:
        if self.own and self.read_only:
            raise ValueError("read_only: only with an absolute path, on storage that hosts share")
        return self

    @property
    def own(self) -> bool:
        """In the guest's folder."""
        return not self.path.is_absolute()


class BootSection(Section):
    """`[boot]`: a kernel given from outside, or the network; else the first disk."""

    kernel: File | None = None
    initrd: File | None = None
    cmdline: str = Field(default="", max_length=2048)
    network: bool = False


class Definition(Section):
    """One guest. A CPU model with a name migrates; `host` would tie it to hosts of one kind."""

    uuid: Annotated[str, AfterValidator(parse_vm_id)] = Field(default_factory=lambda: str(uuid4()))
    name: Annotated[str, AfterValidator(parse_name)]
    vcpus: int = Field(default=1, ge=1, le=MAX_VCPUS)
    memory_mib: int = Field(ge=16, le=MAX_MEMORY_MIB)
    machine: str = Field(default="q35", pattern=r"^[a-z0-9.-]{1,40}$")
    cpu: str = Field(default="qemu64", pattern=r"^[A-Za-z0-9_.+,=-]{1,200}$")
    tenant: str = ""
    group: str = ""
    boot: BootSection = BootSection()
    interface: tuple[NicSection, ...] = Field(default=(), max_length=16)
    disk: tuple[DiskSection, ...] = Field(default=(), max_length=16)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        macs = [nic.mac for nic in self.interface]
        if twice := sorted({mac for mac in macs if macs.count(mac) > 1}):
            raise ValueError(f"interface: several have {', '.join(twice)}")
        paths = [str(disk.path) for disk in self.disk if disk.own]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"disk: several are {', '.join(twice)}")
        if self.boot.kernel is None and (self.boot.initrd or self.boot.cmdline):
            raise ValueError("boot: initrd and cmdline need a kernel")
        return self


def describe(
    definition: Definition, taps: Mapping[str, str], rules: AttachmentRules
) -> Description:
    """The VM as the agent sees it; `taps` are its devices' names by MAC, if it runs."""
    plain = Vm(
        vm_id=definition.uuid,
        name=definition.name,
        interfaces=tuple(Interface(nic.mac) for nic in definition.interface),
        resources=Resources(definition.vcpus, definition.memory_mib),
    )
    seen = tuple(Tap(n.mac, n.bridge, taps.get(n.mac, "")) for n in definition.interface)
    own = (disk for disk in definition.disk if disk.own)
    disks = tuple(Disk(str(disk.path), disk.format, local=True) for disk in own)
    nics = [Nic(nic.mac, nic.bridge) for nic in definition.interface]
    try:
        vm = assigned(plain, nics, assignment(definition), rules)
    except ValueError as error:
        return Description(plain, seen, str(error), disks)
    return Description(replace(vm), seen, disks=disks)


def assignment(definition: Definition) -> Assignment | None:
    """To whom the guest belongs; None if the file does not say. ValueError names the key."""
    if not definition.tenant:
        if definition.group or any(n.network or n.vni or n.ips for n in definition.interface):
            raise ValueError("tenant: is required where group, network, vni or ips are given")
        return None
    try:
        parse_name(definition.tenant)
        if definition.group:
            parse_name(definition.group)
    except ValueError as error:
        raise ValueError(f"tenant, group: {error}") from None
    interfaces = {nic.mac: _interface(nic) for nic in definition.interface}
    return Assignment(definition.tenant, definition.group, interfaces)


def _interface(nic: NicSection) -> Interface:
    try:
        return Interface(
            mac=nic.mac,
            ips=tuple(parse_ip(ip) for ip in nic.ips),
            network=parse_name(nic.network) if nic.network else "",
            vni=parse_vni(nic.vni) if nic.vni else 0,
        )
    except ValueError as error:
        raise ValueError(f"interface {nic.mac}: network, vni, ips: {error}") from None
