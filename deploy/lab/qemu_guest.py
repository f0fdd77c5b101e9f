"""A guest of a host whose hypervisor is QEMU itself: made by `vserver guest`, as its users do."""

import asyncio
import json
import sys
from pathlib import Path

from common.clock import SystemClock
from deploy.lab import image
from deploy.lab.console import Console
from deploy.lab.guest import Guest, GuestSpec
from deploy.lab.host import Host
from vserver.hypervisor.qemu.hand import Hand
from vserver.hypervisor.qemu.home import Home, Homes


def definition(spec: GuestSpec) -> str:
    """The file that `vserver guest define` takes; JSON's texts and lists are TOML's too."""
    system = image.ensure()
    addresses = ",".join(nic.ip or "-" for nic in spec.nics)
    cmdline = f"console=ttyS0 loglevel=0 vs.name={spec.name} vs.ip={addresses}"
    lines = [f'name = "{spec.name}"', f'uuid = "{spec.uuid}"', f"vcpus = {spec.vcpus}"]
    lines += [f"memory_mib = {spec.memory_mib}", f'tenant = "{spec.tenant}"']
    lines += [f'group = "{spec.group}"', "[boot]", f"kernel = {json.dumps(str(system.kernel))}"]
    lines += [f"initrd = {json.dumps(str(system.initrd))}", f"cmdline = {json.dumps(cmdline)}"]
    if spec.disk:
        lines += ["[[disk]]", f"path = {json.dumps(spec.disk)}"]
    for nic in spec.nics:
        lines += ["[[interface]]", f'mac = "{nic.mac}"', f'bridge = "{nic.bridge}"']
        if spec.tenant:
            ips = [nic.ip.partition("/")[0]] if nic.ip else []
            lines += [f'network = "{nic.network}"', f"vni = {nic.vni}", f"ips = {json.dumps(ips)}"]
    return "\n".join(lines) + "\n"


def states(host: Host) -> dict[str, str]:
    """Every guest of the host, by its id, in QEMU's own words."""
    if not guests_of(host).root.is_dir():
        return {}
    seen = asyncio.run(Hand(guests_of(host), SystemClock()).list())
    return {each.definition.uuid: each.state for each in seen}


def guests_of(host: Host) -> Homes:
    return Homes(host.work / "agent-state/guests")


class QemuGuest(Guest):
    """The same guest; the host's agent is configured, for `vserver guest` reads its file."""

    def on(self, host: Host) -> "QemuGuest":
        return QemuGuest(self.spec, host)

    def define(self) -> None:
        file = self.host.work / f"{self.name}.toml"
        file.write_text(definition(self.spec))
        self.vserver("define", str(file))

    def start(self, *, paused: bool = False) -> None:
        self.define()
        self.vserver("start", self.name)
        if paused:
            self.vserver("suspend", self.name)

    def power_on(self) -> None:
        self.vserver("start", self.name)

    def destroy(self) -> None:
        self.vserver("stop", "--now", self.name)

    def undefine(self) -> None:
        self.vserver("undefine", self.name)

    def state(self) -> str:
        return states(self.host).get(self.spec.uuid, "")

    @property
    def home(self) -> Home:
        return guests_of(self.host).of(self.spec.uuid)

    @property
    def pid(self) -> int:
        return int(self.home.file("pid").read_text())

    @property
    def tap(self) -> str:
        launch = self.home.launch()
        if launch is None:
            raise RuntimeError(f"{self.name} has never been started here")
        return launch.taps[self.spec.nics[0].mac]

    def vserver(self, *words: str) -> str:
        """`vserver guest …` on its host."""
        program = str(Path(sys.executable).parent / "vserver")
        config = str(self.host.work / "agent/vserver.toml")
        return self.host.run([program, "guest", *words, "--config", config])

    def _console(self) -> Console:
        return Console(self.home.file("console"))
