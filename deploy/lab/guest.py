"""A guest: what it is, as libvirt's XML, and what can be done with it."""

import uuid
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from deploy.lab import accel, image
from deploy.lab.console import Console
from deploy.lab.host import Host
from deploy.lab.libvirtd import CONSOLES

METADATA_URI = "urn:vsignal:vm:1"
_V = f"{{{METADATA_URI}}}"
ET.register_namespace("vsignal", METADATA_URI)
_QEMU_URI = "http://libvirt.org/schemas/domain/qemu/1.0"
_Q = f"{{{_QEMU_URI}}}"
ET.register_namespace("qemu", _QEMU_URI)


@dataclass(frozen=True)
class Nic:
    """One interface; `ip` carries its prefix (`10.1.0.5/24`), or is empty."""

    mac: str
    vni: int
    ip: str = ""
    network: str = "blue"
    bridge: str = "vsignal"  # the agent's intake; without an agent name the VNI's own


@dataclass(frozen=True)
class GuestSpec:
    """Everything that makes a guest. Without a tenant it is a VM that nobody told us about."""

    name: str
    nics: tuple[Nic, ...]
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    vcpus: int = 1
    memory_mib: int = 128
    tenant: str = ""
    group: str = ""
    disk: str = ""
    """The path of a qcow2 image, as its host calls it."""
    boots_from_network: bool = False
    """No system of ours: the firmware asks for one with DHCP, its first instructions almost."""

    def xml(self) -> str:
        """The domain as `virsh define` takes it."""
        domain = ET.Element("domain", type=accel.domain_type())
        _text(domain, "name", self.name)
        _text(domain, "uuid", self.uuid)
        if self.tenant:
            domain.append(self._metadata())
        _text(domain, "memory", str(self.memory_mib), unit="MiB")
        _text(domain, "vcpu", str(self.vcpus))
        domain.append(self._boot())
        ET.SubElement(ET.SubElement(domain, "features"), "acpi")
        # A named model: what the host happens to have would tie the guest to it.
        cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "qemu64", fallback="forbid")
        domain.append(self._devices())
        if accel.domain_type() == "qemu":
            domain.append(self._odd_memory())
        return ET.tostring(domain, encoding="unicode")

    def _metadata(self) -> ET.Element:
        metadata = ET.Element("metadata")
        group = {"group": self.group} if self.group else {}
        vm = ET.SubElement(metadata, f"{_V}vm", {"tenant": self.tenant, **group})
        for nic in self.nics:
            attributes = {"mac": nic.mac, "network": nic.network, "vni": str(nic.vni)}
            interface = ET.SubElement(vm, f"{_V}interface", attributes)
            if nic.ip:
                ET.SubElement(interface, f"{_V}ip", address=nic.ip.partition("/")[0])
        return metadata

    def _odd_memory(self) -> ET.Element:
        """QEMU before 9.0 without KVM breaks a guest that writes while it is copied, if its memory
        is a multiple of 256 KiB (docs/performance.md); libvirt rounds to 1,024."""
        commandline = ET.Element(f"{_Q}commandline")
        kib = self.memory_mib * 1024 + 8
        words = ["-object", f"memory-backend-ram,id=odd,size={kib}K"]
        for word in [*words, "-machine", "memory-backend=odd", "-m", f"{kib}K"]:
            ET.SubElement(commandline, f"{_Q}arg", value=word)
        return commandline

    def _boot(self) -> ET.Element:
        boot = ET.Element("os")
        _text(boot, "type", "hvm", arch="x86_64", machine="q35")
        if self.boots_from_network:
            ET.SubElement(boot, "boot", dev="network")
            return boot
        system = image.ensure()
        _text(boot, "kernel", str(system.kernel))
        _text(boot, "initrd", str(system.initrd))
        addresses = ",".join(nic.ip or "-" for nic in self.nics)
        _text(boot, "cmdline", f"console=ttyS0 loglevel=0 vs.name={self.name} vs.ip={addresses}")
        return boot

    def _devices(self) -> ET.Element:
        devices = ET.Element("devices")
        _text(devices, "emulator", "/usr/bin/qemu-system-x86_64")
        for nic in self.nics:
            interface = ET.SubElement(devices, "interface", type="bridge")
            ET.SubElement(interface, "mac", address=nic.mac)
            ET.SubElement(interface, "source", bridge=nic.bridge)
            ET.SubElement(interface, "model", type="virtio")
        if self.disk:
            disk = ET.SubElement(devices, "disk", type="file", device="disk")
            ET.SubElement(disk, "driver", name="qemu", type="qcow2")
            ET.SubElement(disk, "source", file=self.disk)
            ET.SubElement(disk, "target", dev="vda", bus="virtio")
        serial = ET.SubElement(devices, "serial", type="unix")
        ET.SubElement(serial, "source", mode="bind", path=str(CONSOLES / self.name))
        ET.SubElement(devices, "controller", type="usb", model="none")
        ET.SubElement(devices, "memballoon", model="none")
        return devices


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


class Guest:
    """A guest on the host where it was put; `on` says where it is looked for next."""

    def __init__(self, spec: GuestSpec, host: Host) -> None:
        self.spec = spec
        self.host = host

    @property
    def name(self) -> str:
        return self.spec.name

    def on(self, host: Host) -> "Guest":
        """The same guest seen on another host, after a move."""
        return Guest(self.spec, host)

    def define(self) -> None:
        file = self.host.work / f"{self.name}.xml"
        file.write_text(self.spec.xml())
        self.host.virsh("define", str(file))

    def start(self, *, paused: bool = False) -> None:
        """Start it, defined or not before; libvirt needs its bridges to exist."""
        self.define()
        self.host.virsh("start", self.name, *(["--paused"] if paused else []))

    def power_on(self) -> None:
        """Start what is defined here already."""
        self.host.virsh("start", self.name)

    def destroy(self) -> None:
        self.host.virsh("destroy", self.name, check=False)

    def undefine(self) -> None:
        self.host.virsh("undefine", self.name, check=False)

    def state(self) -> str:
        """`running`, `paused`, `shut off` …, or empty where the host does not know it."""
        known = self.name in self.host.virsh("list", "--all", "--name").split()
        return self.host.virsh("domstate", self.name).strip() if known else ""

    @property
    def pid(self) -> int:
        """Its QEMU on this host: for tests that kill one, or prove that it is gone."""
        return int((self.host.work / f"run/qemu/{self.name}.pid").read_text())

    @property
    def tap(self) -> str:
        """The name of its first interface's tap on this host."""
        return self.host.virsh("domiflist", self.name).split()[0]

    def limit_copy(self, mib_per_second: int) -> None:
        """How fast its memory is copied from here: a slow copy can be looked at, and broken."""
        self.host.virsh("migrate-setspeed", self.name, str(mib_per_second))

    def migrate(self, to: Host, *options: str) -> "Guest":
        """Move it live with libvirt's own tool: the baseline that we compare with."""
        words = ["migrate", "--live", "--p2p", *options, self.name, to.peer_uri]
        self.host.virsh(*words, timeout=120.0)
        return self.on(to)

    def console(self, command: str, timeout: float = 15.0) -> str:
        """Run a shell command inside the guest, past every network policy."""
        return self._console().run(command, timeout)

    def wait_ready(self, timeout: float = 100.0) -> "Guest":
        """Return when the guest has booted far enough to answer."""
        self._console().wait_ready(timeout)
        return self

    def _console(self) -> Console:
        return Console(self.host.work / "run" / CONSOLES.name / self.name)
