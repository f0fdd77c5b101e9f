"""Before a lost VM is settled, or a standby promoted, whoever could run it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace

from common.model.caller import Caller
from common.model.operation import HostedState
from common.model.place import is_abroad
from common.model.server import Liveness, Server
from common.model.vm import VmRecord
from vcenter.agents.monitor import Monitor
from vcenter.agents.sessions import Sessions
from vcenter.core import indexes
from vcenter.core.fence import Settle, suspected, suspects
from vcenter.core.standby import Promote
from vcenter.core.table import Table
from vcenter.federation.carrying import Carrier
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.writer import Done

ASK_TIMEOUT_S = 2.0


async def promote(ledger: Ledger, sessions: Sessions, monitor: Monitor, command: Promote) -> Done:
    """Raises `Refusal`. The reply is the standby, whose VM is about to start. Besides its owner
    every host is asked that has reported it: somebody may have moved it there by hand. So is every
    host that has not reported yet, to a vCenter that has just started: what it does not say in time
    does not count, for it has never claimed to have the VM."""
    record = ledger.table.must_vm(command.vm_id)
    claimed = {record.location.server_id, *monitor.hosts_of(command.vm_id)}
    hosts = claimed | _unheard(ledger.table, monitor)
    said = await _answers({h: sessions.ask(h, command.vm_id, ASK_TIMEOUT_S) for h in hosts})
    counts = {h: s for h, s in said.items() if h in claimed or s is not HostedState.UNKNOWN}
    return await _decided_by(ledger, command, record, counts)


def _unheard(table: Table, monitor: Monitor) -> set[str]:
    attached = (s for s in table.all(Server, indexes.SERVERS) if s.liveness is Liveness.ATTACHED)
    return {s.server_id for s in attached if monitor.host(s.server_id) is None}


async def settle(
    ledger: Ledger, sessions: Sessions, carrier: Carrier, command: Settle, caller: Caller
) -> Done:
    """Raises `Refusal`. The reply is the VM's location, which is durable. A host of another domain
    is asked by that domain's vCenter."""
    record = ledger.table.must_vm(command.vm_id)
    hosts = {*suspects(ledger.table, record), command.server_id} - {""}
    abroad = {move.destination: move for move in suspected(ledger.table, record)}

    def ask(host: str) -> Awaitable[HostedState]:
        if is_abroad(host) and host in abroad:
            return carrier.ask(abroad[host], caller)
        return sessions.ask(host, command.vm_id, ASK_TIMEOUT_S)

    said = await _answers({host: ask(host) for host in hosts})
    return await _decided_by(ledger, command, record, said)


async def _answers(asked: Mapping[str, Awaitable[HostedState]]) -> dict[str, HostedState]:
    hosts = sorted(asked)
    return dict(zip(hosts, await asyncio.gather(*map(asked.__getitem__, hosts)), strict=True))


async def _decided_by(
    ledger: Ledger,
    command: Settle | Promote,
    record: VmRecord,
    evidence: Mapping[str, HostedState],
) -> Done:
    """What these hosts say is what it is decided on."""
    return await ledger.submit(replace(command, epoch=record.location.epoch, evidence=evidence))
