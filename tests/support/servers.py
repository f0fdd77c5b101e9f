"""vServers, for tests of the core."""

from __future__ import annotations

from common.model.profile import Capability
from common.model.server import Liveness, Server
from common.model.vm import Resources


def attached(name: str) -> Server:
    """A vServer as its agent says of it."""
    return Server(
        name,
        vtep_address="198.51.100.1",
        capacity=Resources(8, 8192),
        hypervisor="memory",
        capabilities=frozenset(Capability),
        migration_uri=f"memory://{name}",
        liveness=Liveness.ATTACHED,
    )
