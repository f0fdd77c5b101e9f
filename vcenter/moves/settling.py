"""Before a lost VM is settled, every host that could run it and can be asked is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from vcenter.agents.sessions import Sessions
from vcenter.core.fence import Settle, suspects
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.writer import Done

ASK_TIMEOUT_S = 2.0


async def settle(ledger: Ledger, sessions: Sessions, command: Settle) -> Done:
    """Raises `Refusal`. The reply is the VM's location, which is durable."""
    record = ledger.table.must_vm(command.vm_id)
    hosts = sorted({*suspects(ledger.table, record), command.server_id} - {""})
    answers = await asyncio.gather(
        *(sessions.ask(host, command.vm_id, ASK_TIMEOUT_S) for host in hosts)
    )
    evidence = dict(zip(hosts, answers, strict=True))
    return await ledger.submit(replace(command, epoch=record.location.epoch, evidence=evidence))
