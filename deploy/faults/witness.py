"""Where a guest is, by the hypervisors' and the process table's word: never by our daemons'."""

from __future__ import annotations

from pathlib import Path

from deploy.lab import Guest, Lab, netns


class Witness:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def in_state(self, guest: Guest, state: str) -> list[str]:
        """The hosts whose hypervisor has it so."""
        return [
            f"h{host.number}"
            for host in self.lab.hosts
            if guest.spec.uuid in host.virsh("list", "--uuid", f"--state-{state}").split()
        ]

    def processes(self, guest: Guest) -> int:
        """Processes that are the guest, on all hosts."""
        mine = guest.spec.uuid.encode()
        return sum(mine in _words(pid) for host in self.lab.hosts for pid in netns.pids(host.netns))


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
