"""Listening to a guest that moves: the order down, what was heard up."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import LISTEN_STAGE
from common.codec.numbers import measured
from common.model.identity import parse_ip, parse_mac, parse_vm_id
from common.model.silence import Listen, ListenStage, Silence
from common.pb.vsignal.v1 import session_pb2 as pb

MAX_WHY = 300  # characters


def to_listen(order: Listen) -> pb.Listen:
    return pb.Listen(
        operation_id=order.operation_id,
        stage=LISTEN_STAGE.to(order.stage),
        vni=order.vni,
        mac=order.mac,
        ip=order.ip,
    )


def from_listen(check: Checker, wire: pb.Listen) -> Listen:
    stage = LISTEN_STAGE.read(check, "stage", wire.stage)
    if stage is not ListenStage.BEGIN:
        return Listen(wire.operation_id, stage)
    mac = check.parse("mac", parse_mac, wire.mac, "")
    ip = check.parse("ip", parse_ip, wire.ip, "")
    return Listen(wire.operation_id, stage, wire.vni, mac, ip)


def to_silence(silence: Silence) -> pb.Silence:
    return pb.Silence(
        operation_id=silence.operation_id, longest_ms=silence.longest_ms, why=silence.why
    )


def from_silence(check: Checker, wire: pb.Silence) -> Silence:
    operation_id = check.parse("operation_id", parse_vm_id, wire.operation_id, "")
    return Silence(operation_id, measured(wire.longest_ms), wire.why[:MAX_WHY])
