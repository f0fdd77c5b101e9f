"""What hosts reported last: usage, applied policy. In memory only; a restart asks again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.model.server import Server, ServerStatus, VmStatus
from vcenter.core.forecast import Gauge
from vcenter.core.loads import Loads
from vcenter.core.view import View

OVERLOADED_CPU_PERCENT = 90.0


@dataclass(frozen=True, slots=True)
class HostReport:
    status: ServerStatus
    at_ms: int


class Monitor:
    def __init__(self) -> None:
        self._hosts: dict[str, HostReport] = {}
        self._vms: dict[str, dict[str, VmStatus]] = {}

    def reported(
        self,
        server_id: str,
        status: ServerStatus,
        vms: Iterable[VmStatus],
        complete: bool,
        now_ms: int,
    ) -> None:
        """`complete`: what is not named is not there."""
        self._hosts[server_id] = HostReport(status, now_ms)
        known = {} if complete else self._vms.get(server_id, {})
        self._vms[server_id] = known | {vm.vm_id: vm for vm in vms}

    def host(self, server_id: str) -> HostReport | None:
        return self._hosts.get(server_id)

    def vm(self, server_id: str, vm_id: str) -> VmStatus | None:
        return self._vms.get(server_id, {}).get(vm_id)

    def hosts_of(self, vm_id: str) -> list[str]:
        """Who has reported the VM last, rightly or not."""
        return sorted(server_id for server_id, vms in self._vms.items() if vm_id in vms)

    def gauge(self, server_id: str, vm_id: str) -> Gauge:
        """What a move of the VM is predicted from."""
        seen = self.vm(server_id, vm_id)
        if seen is None:
            return Gauge()
        return Gauge(seen.memory_used_mib, seen.dirty_bytes_per_second, seen.disks)

    def overloaded(self, view: View, server: Server) -> bool:
        """Promised more than it has, or busy beyond 90 % at its last report."""
        report = self._hosts.get(server.server_id)
        busy = report is not None and report.status.cpu_percent > OVERLOADED_CPU_PERCENT
        return busy or Loads(view).share(server) > 1.0
