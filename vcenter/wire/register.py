"""5.1 on the wire: shared by Register itself and by the members of a SyncGroup."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import VM_STATE
from common.codec.vm import from_vm
from common.model.vm import VmState
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.register import Register, Reply

MAX_EPOCH = 2**63  # leaves room to grow: the field has 64 bits


def outcome_to(reply: Reply) -> pb.RegisterOutcome.ValueType:
    name = reply.outcome.name if reply.outcome is not None else "UNSPECIFIED"
    return pb.RegisterOutcome.Value(f"REGISTER_OUTCOME_{name}")


def read_register(request: pb.RegisterRequest, server_id: str) -> Register:
    """Raises `Refusal(INVALID_FIELD)` with every field that is wrong."""
    check = Checker()
    vm = from_vm(check, request.vm)
    state = VM_STATE.read(check, "state", request.state)
    lost = state is VmState.LOST_NEEDS_FENCE
    check.require(not lost, "state", "a host cannot say of a VM that it is lost")
    check.require(request.epoch <= MAX_EPOCH, "epoch", f"at most {MAX_EPOCH}")
    check.done()
    return Register(server_id, vm, state, request.epoch)
