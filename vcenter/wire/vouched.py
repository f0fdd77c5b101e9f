"""On whose behalf a neighbour calls: a vCenter that passes a call on names the caller, whom it has
identified itself. How far it is believed is this domain's configuration (`vouches`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from common.errors import Reason, Refusal
from common.model.caller import OPERATORS, Caller, Role, parse_caller
from common.model.identity import parse_name
from common.rpc import ASKED_KEY, CALLER_KEY
from vcenter.federation.settings import DomainSettings, Vouching

MAX_VIA = 16  # domains, one behind the other


class Vouched:
    """`own` is this domain's name."""

    def __init__(self, own: str, domains: Iterable[DomainSettings]) -> None:
        self._own = own
        self._vouching = {domain.name: domain.vouching for domain in domains}

    def caller(self, relay: Caller, metadata: Mapping[str, str | bytes]) -> Caller:
        """The vCenter itself, or on whose behalf it calls: never with more than we let it vouch
        for, and never as a vServer or a vCenter. Raises `Refusal`."""
        said = metadata.get(CALLER_KEY)
        if said is None:
            return relay
        vouching = self._vouching.get(relay.name)
        if vouching is None:
            text = f"{relay} is no neighbour of domain {self._own}, and speaks for itself only"
            raise Refusal(Reason.FORBIDDEN, text)
        caller = _read(str(said))
        allowed = _capped(caller, vouching)
        if allowed is None:
            text = f"domain {self._own} does not take {caller.path} on the word of {relay}"
            raise Refusal(Reason.FORBIDDEN, text)
        return replace(allowed, via=self._way(relay, str(metadata.get(ASKED_KEY, ""))))

    def _way(self, relay: Caller, said: str) -> tuple[str, ...]:
        """What each said of the one before it; the last is the one that we have seen ourselves."""
        via = tuple(said.split(","))
        try:
            names = {parse_name(name) for name in via}
        except ValueError as error:
            raise Refusal(Reason.INVALID_FIELD, f"{ASKED_KEY}: {error}") from None
        if via[-1] != relay.name or len(via) > MAX_VIA:
            raise Refusal(Reason.INVALID_FIELD, f"{ASKED_KEY}: not a way that ends with {relay}")
        if self._own in names or len(names) < len(via):
            raise Refusal(Reason.DOMAIN_LOOP, f"the call came by {said} to {self._own}")
        return via


def _read(said: str) -> Caller:
    """Only what `Caller.path` writes, so that an operator's role is never left out."""
    try:
        caller = parse_caller(said)
    except ValueError as error:
        raise Refusal(Reason.UNIDENTIFIED, f"{CALLER_KEY}: {error}") from None
    if caller.path != said:
        raise Refusal(Reason.UNIDENTIFIED, f"{CALLER_KEY}: not {caller.path!r}")
    return caller


def _capped(caller: Caller, vouching: Vouching) -> Caller | None:
    """None: it is nobody here."""
    if vouching == "nobody" or not (caller.confined or caller.role in OPERATORS):
        return None
    if caller.confined:
        return caller
    if vouching == "tenant":
        return None
    return replace(caller, role=min(caller.role, Role(vouching), key=OPERATORS.index))
