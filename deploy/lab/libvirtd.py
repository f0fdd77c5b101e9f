"""One host's own libvirtd: private state directories, no authentication, lab only.

libvirtd's paths are compiled in. So each gets a mount namespace where those paths are
bind mounts of directories in the lab's work directory; the mounts vanish with the
processes. From outside, the same files (sockets, consoles) are reached in the work
directory.
"""

import os
import shutil
import signal
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import netns, shell
from deploy.lab.names import CACHE, CHECKOUT

_MOUNTS = {
    "etc": Path("/etc/libvirt"),
    "run": Path("/run/libvirt"),
    "lib": Path("/var/lib/libvirt"),
    "cache": Path("/var/cache/libvirt"),
    "log": Path("/var/log/libvirt"),
}
_ACCOUNTS = {
    Path("/etc/passwd"): "libvirt-qemu:x:64055:64055::/:/bin/false",
    Path("/etc/group"): "libvirt-qemu:x:64055:\nkvm:x:64056:",
}
CONSOLES = _MOUNTS["run"] / "con"
"""Where guests' serial sockets are, as QEMU sees it: the same path on every host."""

_LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
host_uuid = "{host_uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

# No privileges are dropped and nothing is confined: the guests are ours, the files are
# shared between hosts, and a cgroup or device namespace would need what a container lacks.
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
dynamic_ownership = 0
stdio_handler = "file"
migration_address = "{address}"
migration_host = "{address}"
migrate_tls_x509_cert_dir = "{pki}"
migrate_tls_x509_verify = 1
nbd_tls_x509_cert_dir = "{pki}"
"""


@dataclass(frozen=True)
class Libvirtd:
    """A daemon that can be started, stopped and killed while its guests run on."""

    netns: str
    address: str
    home: Path
    gated: bool = False  # its agent is its lock manager

    @property
    def socket(self) -> Path:
        return self.home / "run/libvirt-sock"

    @property
    def pki(self) -> Path:
        """Where QEMU looks for certificates when a guest is copied; the agent puts them there."""
        return self.home / "pki"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def pid(self) -> int | None:
        """The running daemon; a pid file alone may name a stranger, so its namespace counts."""
        with suppress(OSError, ValueError):
            pid = int((self.home / "run/libvirtd.pid").read_text())
            if pid in netns.pids(self.netns):
                return pid
        return None

    def start(self) -> None:
        """Return when it answers and knows what its QEMU can do.

        The capabilities probe takes seconds, and happens in the first migration unless
        asked for before: hence the question, and the cache kept between runs.
        """
        if not self.home.exists():
            self._prepare()
        _copy_newer(_shared_cache(), self.home / "cache/qemu/capabilities")
        self.socket.unlink(missing_ok=True)
        shell.run(["unshare", "--uts", "sh", "-c", self._script()], netns=self.netns)
        self._wait_ready()
        _copy_newer(self.home / "cache/qemu/capabilities", _shared_cache())

    def stop(self) -> None:
        """Stop it as an upgrade would. QEMU is not its child: the guests keep running."""
        self._signal(signal.SIGTERM)

    def kill9(self) -> None:
        """End it without warning."""
        self._signal(signal.SIGKILL)

    def _script(self) -> str:
        covers = {self.home / name: to for name, to in _MOUNTS.items()}
        covers |= {self.home / file.name: file for file in _ACCOUNTS}
        mounts = [f"mount --bind {ours} {to}" for ours, to in covers.items()]
        daemon = "libvirtd --listen --pid-file /run/libvirt/libvirtd.pid"
        reaper = f"cd {CHECKOUT} && exec {sys.executable} -m deploy.lab.reaper"
        start = f"{reaper} {self.home}/log/stderr {daemon}"
        return " && ".join([f"hostname {self.netns}", "mount --make-rprivate /", *mounts, start])

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 10.0
        while not self.socket.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"libvirtd on {self.netns} does not start\n{self._log_tail()}")
            time.sleep(0.01)
        try:
            shell.run(["virsh", "-q", "-c", self.uri, "domcapabilities", "--virttype", "qemu"])
        except shell.CommandError as error:
            raise RuntimeError(f"libvirtd on {self.netns}: {error}\n{self._log_tail()}") from error

    def _signal(self, sig: signal.Signals) -> None:
        deadline = time.monotonic() + 15.0
        if pid := self.pid:
            os.kill(pid, sig)
        while self.pid:
            if time.monotonic() > deadline:
                raise RuntimeError(f"libvirtd on {self.netns} does not stop")
            time.sleep(0.02)

    def _prepare(self) -> None:
        for name, to in _MOUNTS.items():
            (self.home / name).mkdir(parents=True)
            to.mkdir(parents=True, exist_ok=True)  # a bind mount needs something to cover
        (self.home / "run" / CONSOLES.name).mkdir()
        self._write_accounts()
        self.pki.mkdir(mode=0o700)
        values = {"address": self.address, "host_uuid": str(uuid.uuid4()), "pki": str(self.pki)}
        (self.home / "etc/libvirtd.conf").write_text(_LIBVIRTD_CONF.format(**values))
        lock_manager = 'lock_manager = "lockd"\n' if self.gated else ""
        (self.home / "etc/qemu.conf").write_text(_QEMU_CONF.format(**values) + lock_manager)

    def _write_accounts(self) -> None:
        """libvirtd refuses to start without its compiled-in user, even where it uses another."""
        for file, line in _ACCOUNTS.items():
            (self.home / file.name).write_text(f"{file.read_text().rstrip()}\n{line}\n")

    def _log_tail(self) -> str:
        log = self.home / "log/libvirtd.log"
        return log.read_text()[-2000:] if log.exists() else "(no log)"


def _shared_cache() -> Path:
    return CACHE / "libvirt-capabilities"


def _copy_newer(source: Path, target: Path) -> None:
    """Copy what the target lacks. By renaming: labs that start together share the cache."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.xml"):
        to = target / file.name
        if not to.exists() or to.stat().st_mtime < file.stat().st_mtime:
            scratch = to.with_suffix(f".{uuid.uuid4().hex}")
            shutil.copy2(file, scratch)
            scratch.replace(to)
