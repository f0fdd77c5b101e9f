"""Which of the kernel's privileges the agent has, and needs: a few capabilities, not to be root."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vserver.config import AgentConfig, HypervisorKind, NetworkKind

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Privilege:
    """A capability (capabilities(7)). `vital`: without it nothing works, rather than less."""

    name: str
    bit: int
    purpose: str
    vital: bool


NET_ADMIN = Privilege("CAP_NET_ADMIN", 12, "bridges, tunnels and nftables", vital=True)
NET_RAW = Privilege("CAP_NET_RAW", 13, "measuring the blackout of others' moves", vital=False)
KILL = Privilege("CAP_KILL", 5, "ending a copied QEMU that is another user's", vital=False)
OVERRIDE = Privilege("CAP_DAC_OVERRIDE", 1, "taking the disks of standbys", vital=False)
READ = Privilege("CAP_DAC_READ_SEARCH", 2, "reading libvirt's record of a QEMU", vital=False)


def needed(config: AgentConfig) -> Iterator[Privilege]:
    """The same as deploy/systemd/vserver.service grants, as far as the adaptors use it."""
    if config.network is NetworkKind.LINUX:
        yield from (NET_ADMIN, NET_RAW)
    if config.hypervisor is HypervisorKind.LIBVIRT:
        yield from (KILL, READ)


def held(privilege: Privilege, status: str) -> bool:
    """Whether a process has it, by the text of its /proc/PID/status."""
    lines = (line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(next(lines, "CapEff: 0").split()[1], 16)
    return bool(effective >> privilege.bit & 1)


def may_write_anything() -> bool:
    """Whether files that libvirtd has made for its guests can be written by us."""
    return held(OVERRIDE, STATUS.read_text())


def missing(config: AgentConfig) -> list[Privilege]:
    status = STATUS.read_text()
    return [privilege for privilege in needed(config) if not held(privilege, status)]
