"""The agent's configuration file (TOML), as in `vserver check-config --config FILE`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from common.config import Section
from common.log import LogSettings
from common.model.identity import MAX_VNI, parse_ip, parse_mac, parse_name
from common.rpc import is_local
from common.tls import TlsSettings

Name = Annotated[str, AfterValidator(parse_name)]
Ip = Annotated[str, AfterValidator(parse_ip)]
Mac = Annotated[str, AfterValidator(parse_mac)]


def _address(text: str) -> str:
    """Where a vCenter listens: `host:port`, `[v6]:port`, or `unix:/path` (also `unix:///path`)."""
    if text.startswith("unix:/"):
        return text
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not colon or (":" in host and not bracketed):
        raise ValueError(f"write host:port, [v6]:port or unix:/path, not {text!r}")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"not a port: {port!r}")
    return text


Address = Annotated[str, AfterValidator(_address)]


class HypervisorKind(StrEnum):
    LIBVIRT = "libvirt"
    QEMU = "qemu"  # guests of `vserver guest`, by QEMU's own monitors
    MEMORY = "memory"  # no real VMs: for tests and the demo


class NetworkKind(StrEnum):
    LINUX = "linux"
    MEMORY = "memory"


class LibvirtSettings(Section):
    """`encrypt_migration`: memory travels by TLS between the two QEMUs, with the hosts' own
    certificates, which the agent keeps in `pki` for QEMU to read. `gate`: the agent is this
    libvirtd's lock manager (qemu.conf: `lock_manager = "lockd"`), in the place of virtlockd: no
    guest that moves starts before the ledger says so (docs/gate.md). `disks`: directories in which
    the agent makes the disks of VMs that arrive with them, and removes those of VMs that have left
    so (docs/disks.md)."""

    uri: str = "qemu:///system"
    gate: bool = False
    encrypt_migration: bool = True
    pki: Path = Path("/etc/pki/qemu")
    disks: tuple[Path, ...] = (Path("/var/lib/libvirt/images"),)


class QemuSettings(Section):
    """`guests`: the directory of guests; by default `guests` in `state_dir`. `encrypt_migration`:
    as with libvirt; the certificate is kept in `pki` in `state_dir`."""

    guests: Path | None = None
    encrypt_migration: bool = True


class CapacitySettings(Section):
    """What this host offers to VMs, where it is not what was probed."""

    vcpus: int | None = Field(default=None, ge=1)
    memory_mib: int | None = Field(default=None, ge=1)


class CoordinatesSettings(Section):
    """Where the host stands, in degrees (WGS 84)."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class AttachmentSettings(Section):
    """To whom a VM without metadata of ours belongs: by the bridge or libvirt network it is on."""

    bridge: str = ""
    libvirt_network: str = ""
    tenant: Name
    network: Name | None = None
    vni: int = Field(default=0, ge=0, le=MAX_VNI)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.bridge) == bool(self.libvirt_network):
            raise ValueError("give either bridge or libvirt_network")
        if self.network is None and not self.vni:
            raise ValueError("give network, vni, or both")
        return self


class AgentConfig(Section):
    """One vServer. Only what cannot be probed has to be said."""

    server_id: Name
    name: str = Field(default="", max_length=255)
    management_address: Ip
    vtep_address: Ip
    mac_address: Mac | None = None
    site: Name | None = None
    coordinates: CoordinatesSettings | None = None
    vcenter: tuple[Address, ...] = Field(min_length=1, max_length=16)
    tls: TlsSettings | None = None
    plaintext: bool = False  # to a vCenter on this machine, without certificates
    state_dir: Path
    hypervisor: HypervisorKind = HypervisorKind.LIBVIRT
    network: NetworkKind = NetworkKind.LINUX
    migration_uri: str = Field(default="", max_length=255)
    libvirt: LibvirtSettings = LibvirtSettings()
    qemu: QemuSettings = QemuSettings()
    capacity: CapacitySettings = CapacitySettings()
    attachment: tuple[AttachmentSettings, ...] = ()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for kind in ("bridge", "libvirt_network"):
            places = [place for a in self.attachment if (place := getattr(a, kind))]
            twice = sorted({place for place in places if places.count(place) > 1})
            if twice:
                raise ValueError(f"attachment: {kind} {', '.join(twice)} is said twice")
        if len(set(self.vcenter)) != len(self.vcenter):
            raise ValueError("vcenter: the same address twice")
        disks = [("libvirt.disks", path) for path in self.libvirt.disks]
        for key, path in (
            ("state_dir", self.state_dir),
            ("qemu.guests", self.guests_dir),
            *disks,
        ):
            if not path.is_absolute():
                raise ValueError(f"{key}: not an absolute path: {path}")
        self._check_ways()
        return self

    def _check_ways(self) -> None:
        if self.plaintext == (self.tls is not None):
            raise ValueError("give the [tls] table, or plaintext = true where all is one machine")
        far = [address for address in self.vcenter if not is_local(address)]
        if self.plaintext and far:
            raise ValueError(f"plaintext: {', '.join(far)} is not on this machine")

    @property
    def encrypts(self) -> bool:
        """Whether memory travels by TLS."""
        asked = {
            HypervisorKind.LIBVIRT: self.libvirt.encrypt_migration,
            HypervisorKind.QEMU: self.qemu.encrypt_migration,
        }
        return self.tls is not None and asked.get(self.hypervisor, False)

    @property
    def pki(self) -> Path:
        """Where QEMU finds this host's certificate when it does."""
        libvirt = self.hypervisor is HypervisorKind.LIBVIRT
        return self.libvirt.pki if libvirt else self.state_dir / "pki"

    @property
    def guests_dir(self) -> Path:
        """Where the `qemu` adaptor keeps its guests."""
        return self.qemu.guests or self.state_dir / "guests"
