"""The one place where configuration becomes adaptors. What is not chosen is not even imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from common.clock import Clock
from vserver.app import Parts
from vserver.config import AgentConfig, HypervisorKind, NetworkKind
from vserver.hypervisor.metadata import Attachment, AttachmentRules
from vserver.hypervisor.port import Hypervisor
from vserver.link import GrpcLink
from vserver.network.port import Network
from vserver.state import FileState


def _version() -> str:
    try:
        return version("vsignal")
    except PackageNotFoundError:  # run from a source tree
        return "0"


VERSION = _version()


def parts(config: AgentConfig, clock: Clock) -> Parts:
    """Everything that a real agent is handed. Nothing is opened yet."""
    return Parts(
        clock=clock,
        links=[GrpcLink(address, config.server_id) for address in config.vcenter],
        hypervisor=hypervisor(config, clock),
        network=network(config, clock),
        state=FileState(config.state_dir),
        version=VERSION,
    )


def hypervisor(config: AgentConfig, clock: Clock) -> Hypervisor:
    if config.hypervisor is HypervisorKind.MEMORY:
        from vserver.hypervisor.memory import MemoryFleet

        return MemoryFleet(clock).host(config.server_id, rules=_rules(config))
    from vserver.hypervisor.libvirt.adaptor import LibvirtHypervisor

    return LibvirtHypervisor(config.libvirt.uri, clock, _rules(config))


def network(config: AgentConfig, clock: Clock) -> Network:
    if config.network is NetworkKind.MEMORY:
        from vserver.network.fabric import Fabric
        from vserver.network.memory import MemoryNetwork

        return MemoryNetwork(Fabric(clock).host(config.vtep_address))
    from vserver.network.linux import LinuxNetwork

    return LinuxNetwork(config.vtep_address)


def _rules(config: AgentConfig) -> AttachmentRules:
    bridges, networks = {}, {}
    for entry in config.attachment:
        attachment = Attachment(entry.tenant, entry.network or "", entry.vni)
        if entry.bridge:
            bridges[entry.bridge] = attachment
        else:
            networks[entry.libvirt_network] = attachment
    return AttachmentRules(bridges, networks)
