"""Model enums and wire enums carry the same names; the wire's have a prefix."""

from __future__ import annotations

from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from common.codec.checker import Checker
from common.model.budget import IfOver
from common.model.operation import Basis, HostedState, MoveKind, MoveStep, Phase
from common.model.profile import Action, Capability, Direction
from common.model.server import Liveness, Severity
from common.model.silence import ListenStage
from common.model.telling import Tells
from common.model.vm import VmState
from common.model.wanted import PortState
from common.pb.vsignal.v1 import federation_pb2, operations_pb2, session_pb2, types_pb2

E = TypeVar("E", bound=Enum)


class WireEnum(Protocol):
    """A generated enum: numbers by name."""

    def Value(self, name: str) -> Any: ...


class EnumCodec(Generic[E]):
    """Both ways for one enum, by table. 0 is "not said" and refused unless a default is given."""

    def __init__(self, model: type[E], wire: WireEnum, prefix: str) -> None:
        self._to = {m: wire.Value(f"{prefix}_{m.name}") for m in model}
        self._from = {number: member for member, number in self._to.items()}
        self._fallback = next(iter(model))

    def to(self, member: E) -> Any:
        return self._to[member]

    def read(self, check: Checker, field: str, number: int, default: E | None = None) -> E:
        if number == 0 and default is not None:
            return default
        found = self._from.get(number)
        if found is None:
            check.fail(field, "not said" if number == 0 else f"unknown value {number}")
            return self._fallback
        return found


ACTION = EnumCodec(Action, types_pb2.Action, "ACTION")
DIRECTION = EnumCodec(Direction, types_pb2.Direction, "DIRECTION")
CAPABILITY = EnumCodec(Capability, types_pb2.Capability, "CAPABILITY")
VM_STATE = EnumCodec(VmState, types_pb2.VmState, "VM_STATE")
LIVENESS = EnumCodec(Liveness, types_pb2.Liveness, "LIVENESS")
SEVERITY = EnumCodec(Severity, types_pb2.Severity, "SEVERITY")
BASIS = EnumCodec(Basis, operations_pb2.Basis, "BASIS")
PHASE = EnumCodec(Phase, operations_pb2.Phase, "PHASE")
IF_OVER = EnumCodec(IfOver, operations_pb2.IfOver, "IF_OVER")
MOVE_KIND = EnumCodec(MoveKind, operations_pb2.MoveKind, "MOVE_KIND")
MOVE_STEP = EnumCodec(MoveStep, session_pb2.MoveStep, "MOVE_STEP")
HOSTED_STATE = EnumCodec(HostedState, session_pb2.HostedState, "HOSTED_STATE")
LISTEN_STAGE = EnumCodec(ListenStage, session_pb2.ListenStage, "LISTEN_STAGE")
PORT_STATE = EnumCodec(PortState, session_pb2.PortState, "PORT_STATE")
TELLS = EnumCodec(Tells, federation_pb2.Telling, "TELLING")
