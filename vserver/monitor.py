"""Reports on the beat, and at once when a VM came, went or changed (draft 5.7, A19).

The beat renews this host's lease, so it must not depend on a hypervisor that is slow: usage that
does not come in time is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from common import log
from common.clock import Clock
from common.codec.server import to_server_status, to_vm_status
from common.model.server import ServerStatus, VmStatus
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.wake import Wake
from vserver.core.announce import Announcer
from vserver.core.epochs import Epochs
from vserver.core.status import vm_status
from vserver.core.wanted import Wanted
from vserver.dataplane import DataPlane
from vserver.guests import FAILURES, Guests
from vserver.hypervisor.port import Hypervisor, VmUsage
from vserver.outbox import Outbox
from vserver.session import Session

BEATS_A_LEASE = 3
PAUSE = 0.2  # seconds; changes within it share a report, and a move's switch is over by then
USAGE_WITHIN = 1.0
MAX_VMS = 10_000

_log = log.get(__name__)


class Monitor:
    def __init__(
        self,
        hypervisor: Hypervisor,
        wanted: Wanted,
        guests: Guests,
        plane: DataPlane,
        epochs: Epochs,
        announcer: Announcer,
        session: Session,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._hypervisor = hypervisor
        self._wanted = wanted
        self._guests = guests
        self._plane = plane
        self._epochs = epochs
        self._announcer = announcer
        self._session = session
        self._outbox = outbox
        self._clock = clock
        self.wake = Wake(clock)

    async def run(self) -> None:
        while True:
            await self.wake.heard(self._session.lease / BEATS_A_LEASE)
            await self._clock.sleep(PAUSE)
            if self._session.link is not None:
                self._outbox.report(await self.report())

    async def report(self) -> pb.ReportRequest:
        server, usage = await self._usage()
        vms = [self._status(vm_id, usage.get(vm_id)) for vm_id in self._guests.vms]
        return pb.ReportRequest(
            server=to_server_status(server),
            vms=[to_vm_status(vm) for vm in vms[:MAX_VMS]],
            complete=self._guests.listed and len(vms) <= MAX_VMS,
        )

    def _status(self, vm_id: str, usage: VmUsage | None) -> VmStatus:
        wanted = self._wanted.vms.get(vm_id)
        return vm_status(
            self._guests.vms[vm_id],
            wanted,
            wanted.epoch if wanted is not None else self._epochs.held(vm_id),
            self._plane.observed,
            usage,
            self._plane.problems,
            self._announcer.problem(vm_id),
        )

    async def _usage(self) -> tuple[ServerStatus, Mapping[str, VmUsage]]:
        try:
            async with asyncio.timeout(USAGE_WITHIN):
                return await self._hypervisor.usage()
        except FAILURES as error:
            _log.warning("no usage figures", error=str(error) or "not in time")
            return ServerStatus(), {}
