"""Registering a VM that the ledger has elsewhere: both hosts are asked before it is believed."""

from __future__ import annotations

from common.clock import Clock
from common.model.operation import HostedState
from vcenter.agents.sessions import Sessions
from vcenter.core.enter import Enter
from vcenter.core.register import Confirm, Evidence, Register, Reply
from vcenter.ledger.ledger import Ledger

ASK_TIMEOUT_S = 2.0
PATIENCE_S = 1.5  # a hypervisor that has handed a VM over may say RUNNING for a moment; and a
# VM in two places is to be alarmed about within 2 s
PAUSE_S = 0.1


async def register(
    ledger: Ledger, sessions: Sessions, clock: Clock, command: Register | Enter
) -> Reply:
    """Raises `Refusal`. The reply's record is durable."""
    reply: Reply = (await ledger.submit(command)).reply
    deadline = clock.monotonic() + PATIENCE_S
    while reply.confirm is not None:
        evidence = await _evidence(sessions, command, reply.confirm)
        undecided = evidence.old_owner is HostedState.RUNNING
        if undecided and clock.monotonic() < deadline:
            await clock.sleep(PAUSE_S)
            reply = (await ledger.submit(command)).reply  # it may have been deregistered since
            continue
        reply = (await ledger.submit(command.knowing(evidence))).reply
    return reply


async def _evidence(sessions: Sessions, command: Register | Enter, confirm: Confirm) -> Evidence:
    vm_id = command.vm.vm_id
    old = await sessions.ask(confirm.old_owner, vm_id, ASK_TIMEOUT_S)
    new = await sessions.ask(command.server_id, vm_id, ASK_TIMEOUT_S)
    return Evidence(confirm.epoch, old, new)
