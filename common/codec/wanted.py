"""Wanted state: down to the host."""

from __future__ import annotations

from collections.abc import Iterable

from common.codec.checker import Checker
from common.codec.enums import MOVE_KIND, MOVE_STEP, PORT_STATE
from common.codec.manner import from_budget, from_disks, to_budget, to_disks
from common.codec.profile import from_profile, to_profile
from common.codec.vm import from_vm, to_vm
from common.model.operation import MoveKind
from common.model.wanted import (
    Forward,
    Held,
    MoveOrder,
    NetworkChange,
    NetworkPart,
    WantedNetwork,
    WantedVm,
)
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
        digest=wanted.digest,
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
        digest=wire.digest,
    )


def _to_order(order: MoveOrder) -> pb.MoveOrder:
    return pb.MoveOrder(
        operation_id=order.operation_id,
        step=MOVE_STEP.to(order.step),
        peer_server=order.peer_server,
        peer_address=order.peer_address,
        peer_migration_uri=order.peer_migration_uri,
        epoch=order.epoch,
        kind=MOVE_KIND.to(order.kind),
        gated=order.gated,
        disks=to_disks(order.disks),
        budget=to_budget(order.budget),
        port=order.port,
        definition=order.definition,
    )


def _from_order(check: Checker, wire: pb.MoveOrder) -> MoveOrder:
    return MoveOrder(
        operation_id=wire.operation_id,
        step=MOVE_STEP.read(check, "move.step", wire.step),
        peer_server=wire.peer_server,
        peer_address=wire.peer_address,
        peer_migration_uri=wire.peer_migration_uri,
        epoch=wire.epoch,
        kind=MOVE_KIND.read(check, "move.kind", wire.kind, MoveKind.LIVE),
        gated=wire.gated,
        disks=from_disks(wire.disks),
        budget=from_budget(check, wire.budget),
        port=wire.port,
        definition=wire.definition,
    )


def to_network(part: NetworkPart) -> pb.WantedNetwork:
    wanted = part.network
    return pb.WantedNetwork(
        vni=wanted.vni,
        network=wanted.network,
        forwards=_to_forwards(wanted.forwards),
        vtep_addresses=wanted.vteps,
        revision=part.revision,
        digest=part.digest,
        more=part.more,
    )


def from_network(wire: pb.WantedNetwork) -> NetworkPart:
    network = WantedNetwork(
        vni=wire.vni,
        network=wire.network,
        forwards=_from_forwards(wire.forwards),
        vteps=tuple(wire.vtep_addresses),
    )
    return NetworkPart(network, wire.revision, wire.digest, wire.more)


def to_change(change: NetworkChange) -> pb.NetworkChange:
    return pb.NetworkChange(
        vni=change.vni,
        revision=change.revision,
        before=change.before,
        digest=change.digest,
        forwards=_to_forwards(change.forwards),
        macs_gone=change.macs_gone,
        vtep_addresses=change.vteps,
        vteps_gone=change.vteps_gone,
    )


def from_change(wire: pb.NetworkChange) -> NetworkChange:
    return NetworkChange(
        vni=wire.vni,
        revision=wire.revision,
        before=wire.before,
        digest=wire.digest,
        forwards=_from_forwards(wire.forwards),
        macs_gone=tuple(wire.macs_gone),
        vteps=tuple(wire.vtep_addresses),
        vteps_gone=tuple(wire.vteps_gone),
    )


def _to_forwards(forwards: Iterable[Forward]) -> list[pb.WantedNetwork.Forward]:
    return [pb.WantedNetwork.Forward(mac=f.mac, vtep_address=f.vtep_address) for f in forwards]


def _from_forwards(wire: Iterable[pb.WantedNetwork.Forward]) -> tuple[Forward, ...]:
    return tuple(Forward(f.mac, f.vtep_address) for f in wire)


def add_held(hello: pb.Hello, held: Held) -> None:
    """Into a Hello that names nothing yet."""
    hello.vms.extend(pb.HeldVm(vm_id=vm_id, digest=digest) for vm_id, digest in held.vms)
    hello.networks.extend(pb.HeldNetwork(vni=vni, digest=digest) for vni, digest in held.networks)


def from_held(hello: pb.Hello) -> Held:
    return Held(
        vms=tuple((vm.vm_id, vm.digest) for vm in hello.vms),
        networks=tuple((network.vni, network.digest) for network in hello.networks),
    )
