"""An identity that two domains hold, each an authority of its own."""

from __future__ import annotations

from dataclasses import dataclass

from common.model.identity import Claim, parse_ip, parse_mac, parse_vm_id, parse_vni
from common.model.vm import VmKey

MAX_SIDES = 1000


@dataclass(frozen=True, slots=True, order=True)
class Side:
    """Who holds it in one domain. `server_id` is that domain's own name for the vServer."""

    domain: str
    vm_id: str
    server_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Twin:
    """`identity`: a vm_id, or VNI/MAC or VNI/IP. `sides`: of two domains or more, in order.

    `told_by`: the parent that says so; empty: it was seen here. `thawed_ms` 0: it is frozen.
    """

    identity: str
    sides: tuple[Side, ...]
    since_ms: int
    told_by: str = ""
    thawed_ms: int = 0
    revision: int = 0

    @property
    def frozen(self) -> bool:
        return not self.thawed_ms

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(side.domain for side in self.sides)


def key_of(identity: str) -> VmKey:
    """What to look it up by. Raises ValueError."""
    vni, slash, address = identity.partition("/")
    if not slash:
        return VmKey(parse_vm_id(identity))
    return VmKey(claim=Claim(parse_vni(int(vni)), _parse_address(address)))


def parse_identity(text: str) -> str:
    """In the spelling that the ledger has. Raises ValueError."""
    key = key_of(text)
    return key.vm_id if key.claim is None else f"{key.claim.vni}/{key.claim.address}"


def _parse_address(text: str) -> str:
    """No text is both."""
    try:
        return parse_mac(text)
    except ValueError:
        return parse_ip(text)
