"""What a neighbour may learn, as operators say it and as the ledger keeps it."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import TELLS
from common.model.identity import parse_name
from common.model.telling import MAX_TENANTS, Telling
from common.pb.vsignal.v1 import federation_pb2, storage_pb2


def to_told(telling: Telling) -> storage_pb2.Told:
    return storage_pb2.Told(
        domain=telling.domain,
        tells=TELLS.to(telling.tells),
        tenants=telling.tenants,
        by_command=telling.by_command,
    )


def from_told(
    check: Checker,
    wire: storage_pb2.Told | federation_pb2.TellRequest,
    by_command: bool | None = None,
) -> Telling:
    """`by_command`: of a request; a record says it itself."""
    domain = check.parse("domain", parse_name, wire.domain, "")
    check.at_most("tenants", len(wire.tenants), MAX_TENANTS)
    names = wire.tenants[:MAX_TENANTS]
    tenants = [check.parse(f"tenants[{n}]", parse_name, name, "") for n, name in enumerate(names)]
    tells = TELLS.read(check, "tells", wire.tells)
    if by_command is None:
        by_command = isinstance(wire, storage_pb2.Told) and wire.by_command
    try:
        return Telling(domain, tells, tuple(sorted(set(tenants))), by_command)
    except ValueError as error:
        check.fail("tenants", str(error))
        return Telling(domain)
