"""An identity in two domains, as the ledger keeps it and as vCenters tell each other."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.times import from_timestamp, to_timestamp
from common.model.identity import parse_name, parse_vm_id
from common.model.place import parse_server
from common.model.twin import MAX_SIDES, Side, Twin, parse_identity
from common.pb.vsignal.v1 import types_pb2 as pb


def to_twin(twin: Twin) -> pb.Twin:
    return pb.Twin(
        identity=twin.identity,
        sides=[
            pb.Twin.Side(domain=s.domain, vm_id=s.vm_id, server_id=s.server_id, epoch=s.epoch)
            for s in twin.sides
        ],
        since=to_timestamp(twin.since_ms),
        told_by=twin.told_by,
        thawed_at=to_timestamp(twin.thawed_ms) if twin.thawed_ms else None,
    )


def from_twin(check: Checker, wire: pb.Twin) -> Twin:
    check.at_most("sides", len(wire.sides), MAX_SIDES)
    sides = [_from_side(check, n, side) for n, side in enumerate(wire.sides[:MAX_SIDES])]
    domains = {side.domain for side in sides}
    check.require(len(domains) > 1, "sides", "of two domains or more")
    return Twin(
        check.parse("identity", parse_identity, wire.identity, ""),
        tuple(sorted(sides)),
        from_timestamp(wire.since),
        check.parse("told_by", parse_name, wire.told_by, "") if wire.told_by else "",
        from_timestamp(wire.thawed_at) if wire.HasField("thawed_at") else 0,
    )


def _from_side(check: Checker, number: int, wire: pb.Twin.Side) -> Side:
    with check.at(f"sides[{number}]"):
        return Side(
            check.parse("domain", parse_name, wire.domain, ""),
            check.parse("vm_id", parse_vm_id, wire.vm_id, ""),
            check.parse("server_id", parse_server, wire.server_id, ""),
            wire.epoch,
        )
