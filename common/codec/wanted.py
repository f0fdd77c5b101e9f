"""Wanted state: down to the host."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import MOVE_STEP, PORT_STATE
from common.codec.profile import from_profile, to_profile
from common.codec.vm import from_vm, to_vm
from common.model.wanted import Forward, MoveOrder, WantedNetwork, WantedVm
from common.pb.vsignal.v1 import session_pb2 as pb


def to_wanted_vm(wanted: WantedVm) -> pb.WantedVm:
    return pb.WantedVm(
        vm=to_vm(wanted.vm),
        epoch=wanted.epoch,
        owned=wanted.owned,
        profile=to_profile(wanted.profile),
        profile_hash=wanted.profile_hash,
        ports=PORT_STATE.to(wanted.ports),
        closed_reason=wanted.closed_reason,
        move=_to_order(wanted.move) if wanted.move is not None else None,
    )


def from_wanted_vm(check: Checker, wire: pb.WantedVm) -> WantedVm:
    return WantedVm(
        vm=from_vm(check, wire.vm),
        epoch=wire.epoch,
        owned=wire.owned,
        profile=from_profile(check, wire.profile),
        profile_hash=wire.profile_hash,
        ports=PORT_STATE.read(check, "ports", wire.ports),
        closed_reason=wire.closed_reason,
        move=_from_order(check, wire.move) if wire.HasField("move") else None,
    )


def _to_order(order: MoveOrder) -> pb.MoveOrder:
    return pb.MoveOrder(
        operation_id=order.operation_id,
        step=MOVE_STEP.to(order.step),
        peer_server=order.peer_server,
        peer_address=order.peer_address,
        peer_migration_uri=order.peer_migration_uri,
        epoch=order.epoch,
    )


def _from_order(check: Checker, wire: pb.MoveOrder) -> MoveOrder:
    return MoveOrder(
        operation_id=wire.operation_id,
        step=MOVE_STEP.read(check, "move.step", wire.step),
        peer_server=wire.peer_server,
        peer_address=wire.peer_address,
        peer_migration_uri=wire.peer_migration_uri,
        epoch=wire.epoch,
    )


def to_wanted_network(wanted: WantedNetwork) -> pb.WantedNetwork:
    return pb.WantedNetwork(
        vni=wanted.vni,
        network=wanted.network,
        forwards=[
            pb.WantedNetwork.Forward(mac=f.mac, vtep_address=f.vtep_address)
            for f in wanted.forwards
        ],
        vtep_addresses=wanted.vteps,
    )


def from_wanted_network(wire: pb.WantedNetwork) -> WantedNetwork:
    return WantedNetwork(
        vni=wire.vni,
        network=wire.network,
        forwards=tuple(Forward(f.mac, f.vtep_address) for f in wire.forwards),
        vteps=tuple(wire.vtep_addresses),
    )
