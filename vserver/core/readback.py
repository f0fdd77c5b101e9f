"""What was read back from the data plane, as one answer for a VM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vserver.core.diff import same
from vserver.network.port import ObservedPort, Port


def policy_in_force(ports: Sequence[Port], observed: Mapping[str, ObservedPort]) -> str:
    """The profile's hash if it is in force on each of these ports as it should be, else ""."""
    found = [observed.get(port.device) for port in ports]
    if not all(
        o is not None and o.intact and same(p, o.port) for p, o in zip(ports, found, strict=True)
    ):
        return ""
    hashes = {o.port.policy_hash for o in found if o is not None}
    return hashes.pop() if len(hashes) == 1 else ""
