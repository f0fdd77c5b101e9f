"""A machine that systemd has booted, without a virtual machine: systemd as process 1 of its own
namespaces, this checkout installed in /opt/vsignal, and the shipped units in /etc/systemd/system.

The real machine's files, network and processes are not touched: what is written to /etc, /opt,
/run, /tmp and /var is in memory and gone with it, and so is everything that was started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from contextlib import suppress
from pathlib import Path

from deploy.lab import shell

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
WITHIN_S = 60.0
MAINS = {"vcenter": "vcenter.cli", "vserver": "vserver.cli", "vctl": "vcenter.ctl.main"}
# Of the system's own units none is taken over: what ours refer to is there, and starts nothing.
TARGETS = ("sysinit", "basic", "network-online", "multi-user", "shutdown")
SYSTEM = "[Manager]\nDefaultStandardOutput=tty\nDefaultStandardError=tty\n"

# The capabilities by which a mistake would reach the real machine are given away first.
_BOOT = """
set -e
terminal=$1 made=$2 packages=$3 python=$4
mount --make-rprivate /
mount --bind $terminal /dev/console
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -a /etc/. /mnt
rm -rf /mnt/systemd/system
cp -r $made/etc/. /mnt
mount --move /mnt /etc
for folder in /opt /run /var/lib /var/cache /var/log; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
cp -r $made/opt/. /opt
for folder in packages python; do mkdir /opt/vsignal/$folder; done
chmod -R a+rX /opt/vsignal
mount --bind $packages /opt/vsignal/packages
mount --bind $python /opt/vsignal/python
for folder in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
cd /
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system
exec setpriv --bounding-set -sys_time,-sys_boot,-sys_module,-sys_rawio \\
    {systemd} --system --unit=basic.target --show-status=false --log-target=console \\
    </dev/console >/dev/console 2>&1
"""


class Unbootable(Exception):
    """systemd itself does not come up on this machine; the text says as much as is known."""


def _why_not() -> str | None:
    """What it takes and this machine lacks, or None."""
    missing = [tool for tool in ("unshare", "nsenter", "setpriv") if not shutil.which(tool)]
    missing += [] if SYSTEMD.exists() else [str(SYSTEMD)]
    if os.geteuid() != 0:
        return "not root"
    if missing:
        return f"missing: {', '.join(missing)}"
    return None if (_cgroup2() / "cgroup.procs").exists() else "no cgroup2"


def _cgroup2() -> Path:
    """Where the kernel's one tree is, or would be: beside those of version 1, or alone."""
    beside, alone = CGROUPS
    return beside if beside.exists() else alone


class Machine:
    """`folder` is for what it is made of."""

    def __init__(self, folder: Path) -> None:
        self._made = folder / "machine"
        self._cgroup = _cgroup2() / f"vsignal-{os.getpid()}-{time.monotonic_ns():x}"
        self._said = bytearray()
        self._unshare: subprocess.Popen[bytes] | None = None
        self._terminal = -1
        self._init = 0

    @property
    def log(self) -> str:
        """What systemd and the services have printed."""
        return self._said.decode(errors="replace").replace("\r\n", "\n")

    def up(self) -> None:
        """Raises `Unbootable`."""
        if reason := _why_not():
            raise Unbootable(reason)
        _install(self._made)
        self._cgroup.mkdir()
        self._boot()
        self._until_up()

    def down(self) -> None:
        """Whatever became of `up`."""
        if self._unshare is not None:
            self._unshare.kill()  # process 1 dies with it, and everything with process 1
            self._unshare.wait()
        deadline = time.monotonic() + WITHIN_S
        while self._cgroup.exists():
            self._remove_cgroups()
            assert time.monotonic() < deadline, f"processes are left in {self._cgroup}"
            time.sleep(0.05)

    def run(self, *argv: str, stdin: str | None = None, check: bool = True) -> str:
        """A command of root's on that machine; what it printed."""
        inside = ["nsenter", "-t", str(self._init), "-m", "-p", "-n", "-i", "-u", "-C", "--"]
        return shell.run([*inside, *argv], stdin=stdin, check=check)

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat > "$1"', "sh", path, stdin=text)

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.run("systemctl", "--no-pager", *words, check=check)

    def main_process(self, unit: str) -> str:
        """Its number, on that machine."""
        return self.systemctl("show", "-P", "MainPID", unit).strip()

    def status(self, unit: str) -> dict[str, str]:
        """The main process's /proc/PID/status."""
        text = self.run("cat", f"/proc/{self.main_process(unit)}/status")
        pairs = (line.partition(":") for line in text.splitlines())
        return {key: value.strip() for key, _, value in pairs}

    def _boot(self) -> None:
        self._terminal, inner = os.openpty()
        threading.Thread(target=self._listen, daemon=True).start()
        places = (os.ttyname(inner), str(self._made), sysconfig.get_path("purelib"))
        argv = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork"]
        argv += ["--kill-child", "sh", "-c", _BOOT.format(systemd=SYSTEMD), "boot"]
        enter = f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"'
        self._unshare = subprocess.Popen(
            ["sh", "-c", enter, "sh", *argv, *places, sys.base_prefix],
            stdin=subprocess.DEVNULL,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)

    def _until_up(self) -> None:
        assert self._unshare is not None
        deadline = time.monotonic() + WITHIN_S
        while not self._is_up(self._unshare.pid):
            if self._unshare.poll() is not None or time.monotonic() > deadline:
                raise Unbootable(f"systemd does not come up: {self.log}")
            time.sleep(0.1)

    def _is_up(self, parent: int) -> bool:
        """Before its process 1 is systemd, some of what is seen there is the real machine's."""
        with suppress(OSError, ValueError):
            self._init = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
            if Path(f"/proc/{self._init}/comm").read_text() == "systemd\n":
                return self.systemctl("is-system-running", check=False) == "running\n"
        return False

    def _listen(self) -> None:
        with suppress(OSError):  # the other end is closed
            while said := os.read(self._terminal, 65536):
                self._said += said
        os.close(self._terminal)

    def _remove_cgroups(self) -> None:
        for folder in sorted(self._cgroup.rglob("*/"), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            self._cgroup.rmdir()


def _install(made: Path) -> None:
    """What will be in /etc and /opt."""
    units, opt = made / "etc/systemd/system", made / "opt/vsignal"
    units.mkdir(parents=True)
    for unit in (ROOT / "deploy" / "systemd").iterdir():
        shutil.copy(unit, units)
    for target in TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (made / "etc/systemd/system.conf").write_text(SYSTEM)
    (made / "etc/vsignal").mkdir()
    for package in ("common", "vcenter", "vserver"):
        shutil.copytree(ROOT / package, opt / package)
    (opt / "bin").mkdir()
    python = f"python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for name, module in MAINS.items():
        script = opt / "bin" / name
        script.write_text(
            "#!/bin/sh\nexport PYTHONPATH=/opt/vsignal:/opt/vsignal/packages\n"
            "export LD_LIBRARY_PATH=/opt/vsignal/python/lib\n"
            f"exec /opt/vsignal/{python} -c 'from {module} import main; main()' \"$@\"\n"
        )
        script.chmod(0o755)
