"""`vserver doctor`: what this host can do and what not, probed now. It changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

from common.clock import Clock
from common.errors import Refusal
from common.model.profile import Capability
from vserver.adaptors import hypervisor, network
from vserver.config import AgentConfig, HypervisorKind
from vserver.guests import FAILURES
from vserver.hypervisor.port import HostFacts
from vserver.network.port import Network
from vserver.privileges import missing, needed

NEEDED = frozenset({Capability.ACL, Capability.ANTI_SPOOFING})  # without them no port is safe


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `vital`: without it this host can hold no VM safely."""

    part: str
    name: str
    works: bool
    text: str
    vital: bool = False


@runtime_checkable
class Diagnosing(Protocol):
    """A network adaptor that can say more than which capabilities it has."""

    async def diagnose(self) -> list[tuple[str, bool, str]]: ...


async def examine(config: AgentConfig, clock: Clock) -> list[Finding]:
    """Privileges, the hypervisor, then the data plane. Nothing is opened for work."""
    return [
        *_privileges(config),
        *await _hypervisor(_without_gate(config), clock),
        *await _gate(config),
        *await _network(network(config, clock)),
    ]


def is_fit(findings: list[Finding]) -> bool:
    return all(finding.works for finding in findings if finding.vital)


def as_data(findings: list[Finding]) -> dict[str, object]:
    """For `-o json`."""
    return {"fit": is_fit(findings), "findings": [asdict(finding) for finding in findings]}


def _privileges(config: AgentConfig) -> list[Finding]:
    lacking = missing(config)
    return [
        Finding("process", one.name, one not in lacking, f"for {one.purpose}", one.vital)
        for one in needed(config)
    ]


async def _hypervisor(config: AgentConfig, clock: Clock) -> list[Finding]:
    part = config.hypervisor.value
    try:
        adaptor = hypervisor(config, clock)
    except ImportError as error:
        text = f"{error}: install vsignal with its extra `hosts`"
        return [Finding(part, "bindings", False, text, vital=True)]
    try:
        if config.hypervisor is not HypervisorKind.QEMU:  # its facts need no connection, and to
            await adaptor.open()  # open it is to take an agent's place that may be running here
        return _facts(part, await adaptor.facts())
    except FAILURES as error:
        return [Finding(part, "connection", False, _words(error), vital=True)]
    finally:
        await adaptor.close()


def _without_gate(config: AgentConfig) -> AgentConfig:
    """To open the gate is to take an agent's place."""
    libvirt = config.libvirt.model_copy(update={"gate": False})
    return config.model_copy(update={"libvirt": libvirt})


async def _gate(config: AgentConfig) -> list[Finding]:
    if config.hypervisor is not HypervisorKind.LIBVIRT or not config.libvirt.gate:
        return []
    from vserver.hypervisor.libvirt.gate import checkup
    from vserver.hypervisor.libvirt.source_process import run_directory

    run = run_directory(config.libvirt.uri)
    if run is None:
        text = f"{config.libvirt.uri} is not this host's system libvirtd: no agent starts"
        return [Finding("libvirt", "gate", False, text, vital=True)]
    found = await asyncio.to_thread(checkup.examine, run)
    return [Finding("libvirt", name, works, text) for name, works, text in found]


def _facts(part: str, facts: HostFacts) -> list[Finding]:
    fast = facts.acceleration == "kvm"
    text = facts.acceleration if fast else f"{facts.acceleration}: guests run, but slowly"
    capacity = f"{facts.capacity.vcpus} CPUs, {facts.capacity.memory_mib} MiB"
    return [
        Finding(part, "connection", True, f"{facts.hypervisor} {facts.version}", vital=True),
        Finding(part, "capacity", True, f"{capacity}, CPU model {facts.cpu_model or 'unknown'}"),
        Finding(part, "acceleration", fast, text),
    ]


async def _network(adaptor: Network) -> list[Finding]:
    try:
        can = await adaptor.capabilities()
        details = await adaptor.diagnose() if isinstance(adaptor, Diagnosing) else []
    except FAILURES as error:
        return [Finding(adaptor.name, "probe", False, _words(error), vital=True)]
    findings = [Finding(adaptor.name, name, works, text) for name, works, text in details]
    return findings + [
        Finding(adaptor.name, f"enforces {c.value}", c in can, _enforced(c in can), c in NEEDED)
        for c in Capability
    ]


def _enforced(can: bool) -> str:
    return "yes" if can else "a profile that needs it is refused here"


def _words(error: Exception) -> str:
    if isinstance(error, Refusal):
        return error.message
    return str(error) or "it did not answer in time"
