"""The whole lab: up, down, and what is in it."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from deploy.lab import accel, image, netns, underlay
from deploy.lab.guest import Guest, GuestSpec
from deploy.lab.host import Host
from deploy.lab.names import VCENTER_ADDRESS, Names, fresh_run_id
from deploy.lab.probe import Probe
from deploy.lab.qemu_guest import QemuGuest


class Lab:
    """A number of hosts, a place for the vCenter, and the underlay between them.

    All state is in the machine (namespaces, files), none in this object: `Lab("demo")`
    in another process is the same lab, and can take it down.
    """

    def __init__(
        self,
        run_id: str | None = None,
        hosts: int = 3,
        hypervisor: str = "libvirt",
        gated: bool = False,
    ) -> None:
        """`gated`: no guest runs on a host without its agent's leave."""
        self.names = Names(run_id or fresh_run_id())
        self.hosts = [Host(self.names, number, hypervisor, gated) for number in range(1, hosts + 1)]
        self.vcenter_netns = self.names.vcenter
        self.vcenter_address = VCENTER_ADDRESS

    @classmethod
    def existing(cls, run_id: str) -> "Lab":
        """The lab that another process has set up."""
        names = Names(run_id)
        count = sum(names.host(n) in netns.existing() for n in range(1, 100))
        return cls(run_id, count)

    def host(self, number: int) -> Host:
        """Hosts are counted from 1, as their addresses are."""
        return self.hosts[number - 1]

    def up(self) -> Self:
        """Set everything up, or leave nothing behind."""
        image.ensure()
        accel.domain_type()
        self.names.work.mkdir(mode=0o711)  # fails where the lab is up already
        try:
            underlay.create(self.names.underlay)
            netns.create(self.vcenter_netns)
            underlay.plug(self.names.underlay, self.vcenter_netns, self.vcenter_address)
            _at_once([host.up for host in self.hosts])
        except BaseException:
            self.down()
            raise
        return self

    def down(self) -> None:
        """End all processes inside, remove all namespaces and files; repeating is harmless."""
        netns.remove([name for name in netns.existing() if self.names.owns(name)])
        shutil.rmtree(self.names.work, ignore_errors=True)

    def guest(self, spec: GuestSpec, on: int) -> Guest:
        """Start a guest on a host; its bridges must exist there."""
        guest = self.place(spec, on)
        guest.start()
        return guest

    def place(self, spec: GuestSpec, on: int) -> Guest:
        """A guest that is not there yet."""
        host = self.host(on)
        return QemuGuest(spec, host) if host.hypervisor == "qemu" else Guest(spec, host)

    def probe(self, name: str, on: int, bridge: str, address: str) -> Probe:
        """Plug a measuring endpoint into a host's bridge."""
        return Probe(self.host(on), name, bridge, address).up()

    def cut(self, number: int) -> None:
        """Pull a host's underlay cable, as a failing switch would."""
        underlay.cut(self.names.underlay, number)

    def mend(self, number: int) -> None:
        """Put the cable back."""
        underlay.mend(self.names.underlay, number)

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()


def _at_once(jobs: list[Callable[[], None]]) -> None:
    """Run all, wait for all, then raise the first error: nothing is left half running."""
    with ThreadPoolExecutor(max_workers=len(jobs) or 1) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
