"""A hypervisor host of the lab: a network namespace, an underlay address, a libvirtd or none."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from deploy.lab import netns, shell
from deploy.lab.libvirtd import Libvirtd
from deploy.lab.names import Names, underlay_address
from deploy.lab.underlay import plug


class Host:
    """One of the lab's hosts. It holds no state: a fresh process can make it again."""

    def __init__(
        self, names: Names, number: int, hypervisor: str = "libvirt", gated: bool = False
    ) -> None:
        self.names = names
        self.hypervisor = hypervisor
        self.number = number
        self.netns = names.host(number)
        self.address = underlay_address(number)
        self.work = names.work / f"h{number}"
        self.libvirtd = Libvirtd(self.netns, self.address, self.work, gated)

    @property
    def libvirt_uri(self) -> str:
        """How programs of this machine reach it, whatever their namespaces."""
        return self.libvirtd.uri

    @property
    def peer_uri(self) -> str:
        """How the other hosts reach it, to migrate to it: its libvirtd, or its agent."""
        if self.hypervisor == "qemu":
            return f"qmp+tcp://{self.address}:7402"
        return f"qemu+tcp://{self.address}/system"

    def up(self) -> None:
        """Plug the host into the underlay and start its libvirtd, if it is to have one."""
        netns.create(self.netns)
        plug(self.names.underlay, self.netns, self.address)
        if self.hypervisor == "libvirt":
            self.libvirtd.start()
        else:
            self.work.mkdir(mode=0o711)

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = 60.0) -> str:
        """Run a command on this host, and return what it printed."""
        return shell.run(argv, netns=self.netns, check=check, timeout=timeout)

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on this host, such as the agent; it ends with the lab at the latest."""
        return subprocess.Popen(
            shell.inside(self.netns, argv),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    @property
    def virsh_line(self) -> str:
        """What a person types to do the same."""
        return f"ip netns exec {self.netns} virsh -c '{self.libvirt_uri}'"

    def virsh(self, *words: str, check: bool = True, timeout: float = 60.0) -> str:
        """libvirt's own tool against this host: the lab's voice, and the benchmark's rival."""
        argv = ["virsh", "-q", "-c", self.libvirt_uri, *words]
        return self.run(argv, check=check, timeout=timeout)

    def start_libvirtd(self) -> None:
        self.libvirtd.start()

    def stop_libvirtd(self) -> None:
        self.libvirtd.stop()

    def kill9_libvirtd(self) -> None:
        self.libvirtd.kill9()

    def guests(self) -> list[str]:
        """The names of the guests that run here, as libvirt says."""
        return self.virsh("list", "--name").split()
