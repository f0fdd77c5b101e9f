"""What this host is, as it introduces itself (draft 4.2): configured, or else probed."""

from __future__ import annotations

from common.model.profile import Capability
from common.model.server import Coordinates, Server
from common.model.vm import Resources
from vserver.config import AgentConfig
from vserver.hypervisor.port import HostFacts


def describe(
    config: AgentConfig,
    facts: HostFacts,
    capabilities: frozenset[Capability],
    migration_name: str = "",
    *,
    keeps_standbys: bool = False,
    carries_disks: bool = False,
) -> Server:
    """The operator's word over the probe's. `migration_name`: what the certificate of this end of
    an encrypted copy says."""
    at = config.coordinates
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
        migration_uri=config.migration_uri + (f"#{migration_name}" if migration_name else ""),
        keeps_standbys=keeps_standbys,
        carries_disks=carries_disks,
        mac_address=config.mac_address or "",
        coordinates=Coordinates(at.latitude, at.longitude) if at is not None else None,
    )
