"""What this host is, as it introduces itself (draft 4.2): configured, or else probed."""

from __future__ import annotations

from common.model.profile import Capability
from common.model.server import Server
from common.model.vm import Resources
from vserver.config import AgentConfig
from vserver.hypervisor.port import HostFacts


def describe(config: AgentConfig, facts: HostFacts, capabilities: frozenset[Capability]) -> Server:
    """The operator's word over the probe's."""
    return Server(
        server_id=config.server_id,
        name=config.name or config.server_id,
        management_address=config.management_address,
        vtep_address=config.vtep_address,
        site=config.site or "",
        capacity=Resources(
            config.capacity.vcpus or facts.capacity.vcpus,
            config.capacity.memory_mib or facts.capacity.memory_mib,
        ),
        hypervisor=facts.hypervisor,
        cpu_model=facts.cpu_model,
        capabilities=capabilities,
        migration_uri=config.migration_uri,
        mac_address=config.mac_address or "",
    )
