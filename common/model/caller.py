"""Who calls (I9): a role and a name, as a certificate's URI says it; in plain text, metadata.

In a certificate it stands as `spiffe://DOMAIN/` and `Caller.path` (SPIFFE ID, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from common.model.identity import parse_name

SCHEME = "spiffe://"
SUFFIX = "vsignal.internal"  # of the DNS names in certificates; never resolved


class Role(StrEnum):
    """What `rules` has a column for; of operators there are three, each doing what the one before
    it may, and more."""

    VSERVER = "vserver"
    VCENTER = "vcenter"  # serves; it calls nobody of its own domain
    DOMAIN = "domain"  # another domain's vCenter, a neighbour: it serves nobody here
    TENANT = "tenant"
    WATCHER = "watcher"
    VIEW = "view"
    OPERATE = "operate"
    ADMIN = "admin"


OPERATORS = (Role.VIEW, Role.OPERATE, Role.ADMIN)
SPELLINGS = (
    "vserver/ID, vcenter/ID, domain/NAME, tenant/ID, operator/NAME[/view|operate|admin],"
    " watcher/NAME/tenant/ID or watcher/NAME/network/ID"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant` or `network`: the caller is confined to what belongs to it; `tenants`: another
    domain's vCenter is, to what belongs to them. `via`: the domains that passed its call on,
    beginning with the one that knows it; empty: it called itself. `serial`: of the certificate with
    which it called; the same caller may have several."""

    role: Role
    name: str
    tenant: str = ""
    network: str = ""
    via: tuple[str, ...] = ()
    tenants: frozenset[str] | None = None
    serial: str = field(default="", compare=False)

    @property
    def confined(self) -> bool:
        return bool(self.tenant or self.network) or self.tenants is not None

    def __str__(self) -> str:
        """As logs, operations and the audit log name it."""
        return f"{self._named} via {', '.join(self.via)}" if self.via else self._named

    @property
    def _named(self) -> str:
        return f"{'operator' if self.role in OPERATORS else self.role}/{self.name}"

    @property
    def path(self) -> str:
        """All that there is to say of who it is; `parse_caller` reads it back."""
        named = self._named
        if self.role in OPERATORS:
            return f"{named}/{self.role}"
        if self.role is not Role.WATCHER:
            return named
        return f"{named}/tenant/{self.tenant}" if self.tenant else f"{named}/network/{self.network}"


def parse_caller(said: str) -> Caller:
    """What an identity stands for; its spellings are `SPELLINGS`. An operator's that names no role
    has all of them, a watcher's that names no scope is none. Raises ValueError."""
    kind, _, rest = said.partition("/")
    name, *more = rest.split("/")
    parse_name(name)
    if kind == "operator" and len(more) <= 1:
        role = Role(more[0]) if more else Role.ADMIN
        if role in OPERATORS:
            return Caller(role, name)
    elif kind == "watcher" and len(more) == 2 and more[0] in ("tenant", "network"):
        scope, of_tenant = parse_name(more[1]), more[0] == "tenant"
        tenant, network = (scope, "") if of_tenant else ("", scope)
        return Caller(Role.WATCHER, name, tenant=tenant, network=network)
    elif kind == "tenant" and not more:
        return Caller(Role.TENANT, name, tenant=name)
    elif kind in ("vserver", "vcenter", "domain") and not more:
        return Caller(Role(kind), name)
    raise ValueError(f"not an identity: {said!r}")


def uri_of(domain: str, caller: Caller) -> str:
    return f"{SCHEME}{domain}/{caller.path}"


def parse_uri(uri: str) -> tuple[str, Caller]:
    """Domain and caller, or ValueError. Only what `uri_of` writes is read: one text for each."""
    domain, slash, path = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not slash:
        raise ValueError(f"not {SCHEME}DOMAIN/ROLE/NAME: {uri!r}")
    caller = parse_caller(path)
    if uri_of(parse_name(domain), caller) != uri:
        raise ValueError(f"not written as we write it: {uri!r}")
    return domain, caller


def dns_name(domain: str, caller: Caller) -> str:
    """The name that a client demands of the server whom it calls, whatever its address: a vCenter's
    is the same for all of a domain, a vServer's is its own. The CA gives it by identity, so that
    nobody can ask for another's. Empty for those who serve nothing."""
    if caller.role is Role.VCENTER:
        return f"vcenter.{domain}.{SUFFIX}"
    if caller.role is Role.VSERVER:
        return f"{caller.name}.vserver.{domain}.{SUFFIX}"
    return ""
