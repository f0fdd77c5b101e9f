"""Names of vServers across domains: DOMAIN/SERVER is another domain's, SERVER is one of our own."""

from __future__ import annotations

from common.model.identity import parse_name


def domain_of(server_id: str) -> str:
    """Empty: our own."""
    return server_id.rpartition("/")[0]


def is_abroad(server_id: str) -> bool:
    return "/" in server_id


def bare(server_id: str) -> str:
    """As it is called in its own domain."""
    return server_id.rpartition("/")[2]


def qualified(server_id: str, own: str) -> str:
    """As everybody understands it. `own`: the domain whose word it is."""
    return server_id if is_abroad(server_id) else f"{own}/{server_id}"


def seen_from(own: str, qualified_id: str) -> str:
    """As that domain itself calls it."""
    return bare(qualified_id) if domain_of(qualified_id) == own else qualified_id


def translated(server_id: str, teller: str, own: str) -> str:
    """What the teller's domain calls so, in our own words."""
    return seen_from(own, qualified(server_id, teller))


def parse_server(text: str) -> str:
    """SERVER or DOMAIN/SERVER. Raises ValueError."""
    domain, slash, server_id = text.partition("/")
    if slash:
        parse_name(server_id)
    parse_name(domain)
    return text


def parse_place(text: str) -> str:
    """As `parse_server`, or DOMAIN/ for any vServer there. Raises ValueError."""
    if text.endswith("/"):
        parse_name(text[:-1])
        return text
    return parse_server(text)
