"""QEMU's command line for a guest. Pure: the same guest has the same devices on every host."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vserver.core.taps import PREFIX
from vserver.hypervisor.qemu.definition import Definition, DiskSection
from vserver.hypervisor.qemu.home import Home, Launch

# Stricter ones (`spawn`, `elevateprivileges`) also forbid QEMU to become a daemon.
_SANDBOX = "on,obsolete=deny,resourcecontrol=deny"

_ODD_KIB = 8  # the least that QEMU does not round away


def tap_name(vm_id: str, mac: str) -> str:
    """Of a guest started here. It bears the prefix that makes ports closed by default, and cannot
    be the one of an arriving guest, which follows from the MAC alone."""
    return PREFIX + hashlib.sha256(f"{vm_id} {mac}".encode()).hexdigest()[:10]


def command(binary: str, home: Home, launch: Launch, *, incoming: bool) -> list[str]:
    """Started with its CPUs stopped: its taps are plugged in before its first instruction."""
    definition = launch.definition
    argv = [binary, "-name", f"guest={definition.name}", "-uuid", definition.uuid]
    argv += ["-machine", f"{launch.machine},accel={launch.accelerator}", "-cpu", definition.cpu]
    argv += ["-m", _memory(launch), "-smp", str(definition.vcpus)]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-sandbox", _SANDBOX]
    for monitor in ("agent", "hand"):
        argv += [*_socket(home, monitor), "-mon", f"chardev={monitor},mode=control"]
    argv += [*_socket(home, "console"), "-device", "isa-serial,chardev=console"]
    for number, disk in enumerate(definition.disk):
        argv += _disk(number, disk, home)
    for number, nic in enumerate(definition.interface):
        device = launch.taps[nic.mac]
        argv += ["-netdev", f"tap,id=net{number},ifname={device},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,id=nic{number},netdev=net{number},mac={nic.mac}"]
    argv += _boot(definition)
    argv += ["-daemonize", "-pidfile", str(home.file("pid")), "-D", str(home.file("qemu.log"))]
    return argv + (["-incoming", "defer"] if incoming else [])


def _memory(launch: Launch) -> str:
    """What the guest is to have. Without KVM some more, lest its copy go bad: below 9.0, QEMU's own
    translator forgets which pages it wrote while they are copied, where a guest's memory is a
    multiple of 256 KiB ("physmem: Fix migration dirty bitmap coherency with TCG memory access")."""
    kib = launch.definition.memory_mib * 1024
    return f"{kib + _ODD_KIB if launch.accelerator == 'tcg' else kib}K"


def _socket(home: Home, name: str) -> list[str]:
    return ["-chardev", f"socket,id={name},path={_quoted(home.file(name))},server=on,wait=off"]


def _disk(number: int, disk: DiskSection, home: Home) -> list[str]:
    only = "on" if disk.read_only else "off"
    path = home.path / disk.path  # which is the path itself where that is absolute
    below = f"driver=file,node-name=file{number},filename={_quoted(path)},read-only={only}"
    node = f"driver={disk.format},node-name=disk{number},file=file{number},read-only={only}"
    device = f"virtio-blk-pci,id=blk{number},drive=disk{number}"
    return ["-blockdev", below, "-blockdev", node, "-device", device]


def _boot(definition: Definition) -> list[str]:
    boot = definition.boot
    argv = ["-boot", "n" if boot.network else "c"]
    if boot.kernel:
        argv += ["-kernel", str(boot.kernel), "-append", boot.cmdline]
    if boot.initrd:
        argv += ["-initrd", str(boot.initrd)]
    return argv


def _quoted(path: Path) -> str:
    """A comma in an option's value is doubled."""
    return str(path).replace(",", ",,")
