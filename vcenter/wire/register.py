"""5.1 on the wire: shared by Register itself and by the members of a SyncGroup."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import VM_STATE
from common.codec.vm import from_vm
from common.model.vm import VmState
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.enter import Enter
from vcenter.core.register import Outcome, Register, Reply
from vcenter.ledger.encoded import packed

MAX_EPOCH = 2**63  # leaves room to grow: the field has 64 bits


_OUTCOMES = {
    outcome: pb.RegisterOutcome.Value(f"REGISTER_OUTCOME_{outcome.name}") for outcome in Outcome
}
_PLAIN_STATES: dict[int, VmState] = {
    VM_STATE.to(state): state for state in VmState if state is not VmState.LOST_NEEDS_FENCE
}


def outcome_to(reply: Reply) -> pb.RegisterOutcome.ValueType:
    return (
        _OUTCOMES[reply.outcome] if reply.outcome is not None else pb.REGISTER_OUTCOME_UNSPECIFIED
    )


def read_register(request: pb.RegisterRequest, server_id: str) -> Register | Enter:
    """Raises `Refusal(INVALID_FIELD)` with every field that is wrong."""
    plain = _PLAIN_STATES.get(request.state)
    if plain is not None and request.epoch <= MAX_EPOCH:
        known = packed(request.vm.SerializeToString())
        if known is not None:
            return Enter(server_id, known, plain, request.epoch)
    check = Checker()
    vm = from_vm(check, request.vm)
    state = VM_STATE.read(check, "state", request.state)
    lost = state is VmState.LOST_NEEDS_FENCE
    check.require(not lost, "state", "a host cannot say of a VM that it is lost")
    check.require(request.epoch <= MAX_EPOCH, "epoch", f"at most {MAX_EPOCH}")
    check.done()
    return Register(server_id, vm, state, request.epoch)
