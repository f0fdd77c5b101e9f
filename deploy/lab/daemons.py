"""Our own daemons in the lab: a vCenter in its namespace, an agent on every host."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.domain import Domain
from deploy.lab import shell
from deploy.lab.host import Host
from deploy.lab.lab import Lab
from deploy.lab.names import CHECKOUT

BIN = Path(sys.executable).parent
PORT = 7400
STORAGE = Path("/var/lib/libvirt")


class Daemon:
    """A process with a configuration file and a log; `stop` is what systemd would do. `storage`:
    the directory that it sees where libvirt has its own."""

    def __init__(
        self, netns: str, work: Path, program: str, config: str, storage: Path | None = None
    ) -> None:
        work.mkdir(exist_ok=True)
        self.log = work / f"{program}.log"
        self.pid_file = work / f"{program}.pid"
        self._netns = netns
        self._argv = [str(BIN / program), "run", "--config", str(work / f"{program}.toml")]
        if storage is not None:  # mounted in the namespace that `ip netns exec` makes for each
            mounted = f'mount --bind {storage} {STORAGE} && exec "$@"'
            self._argv = ["sh", "-c", mounted, "sh", *self._argv]
        (work / f"{program}.toml").write_text(config)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                shell.inside(self._netns, self._argv),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the demo is for the demo
            )
        self.pid_file.write_text(str(self.process.pid))

    def stop(self) -> int:
        """SIGTERM, and wait: a clean stop."""
        return self._end(signal.SIGTERM)

    def kill9(self) -> int:
        """What a power cut leaves of a process."""
        return self._end(signal.SIGKILL)

    def _end(self, sig: signal.Signals) -> int:
        if self.process is None:
            return 0
        os.kill(self.process.pid, sig)
        code = self.process.wait(20)
        self.process = None
        return code

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class Center:
    """A vCenter's place in the lab. `name`: its domain's; `folder`: all that it has on disk."""

    name: str
    netns: str
    address: str
    folder: Path

    @property
    def socket(self) -> Path:
        """Where the operator reaches it from any namespace."""
        return self.folder / "vcenter.sock"

    @property
    def domain(self) -> Domain:
        """Its own CA, and who has a certificate of it."""
        made = Domain(self.folder / "domain", self.name)
        made.make(f"unix:{self.socket}")
        return made


def only(lab: Lab) -> Center:
    """Where there is one vCenter."""
    return Center("lab", lab.vcenter_netns, lab.vcenter_address, lab.names.work)


def vcenter(
    lab: Lab, lease_seconds: float = 6.0, at: Center | None = None, extra: str = ""
) -> Daemon:
    """Listens in its namespace for the agents, and on a unix socket for the operator. `extra` is
    appended to the configuration."""
    at = at or only(lab)
    work = at.folder / "vcenter"
    config = f"""
domain = "{at.name}"
listen = ["{at.address}:{PORT}", "unix:{at.socket}"]
{at.domain.table("vcenter/lab")}
store = "sqlite:{work}/ledger.db"
lease_seconds = {lease_seconds}
log = {{format = "json"}}
{extra}
"""
    return Daemon(at.netns, work, "vcenter", config)


def domain(lab: Lab) -> Domain:
    """The lab's own CA, and who has a certificate of it."""
    return only(lab).domain


def socket_of(lab: Lab) -> Path:
    """Where the operator reaches the vCenter from any namespace."""
    return only(lab).socket


def agent(
    lab: Lab, host: Host, extra: str = "", encrypt: bool = False, at: Center | None = None
) -> Daemon:
    """`extra` is appended to the configuration: attachments, capacity … `encrypt`: memory travels
    by TLS, which takes hosts that share two cores three times as long. `at`: its vCenter."""
    at, says = at or only(lab), str(encrypt).lower()
    config = f"""
server_id = "h{host.number}"
name = "{host.netns}"
management_address = "{host.address}"
vtep_address = "{host.address}"
vcenter = ["{at.address}:{PORT}"]
state_dir = "{host.work}/agent-state"
{at.domain.table(f"vserver/h{host.number}")}
migration_uri = "{host.peer_uri}"
hypervisor = "{host.hypervisor}"
libvirt = {{{_libvirt(host)}, encrypt_migration = {says}}}
qemu = {{encrypt_migration = {says}}}
log = {{format = "json"}}
{extra}
"""
    storage = host.work / "lib" if host.hypervisor == "libvirt" else None
    return Daemon(host.netns, host.work / "agent", "vserver", config, storage)


def _libvirt(host: Host) -> str:
    gate = str(host.libvirtd.gated).lower()
    return f'uri = "{host.libvirt_uri}", pki = "{host.libvirtd.pki}", gate = {gate}'


def wait_socket(path: Path, timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear in {timeout} s")
        time.sleep(0.02)
