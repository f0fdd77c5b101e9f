"""Where the suite of `Network` runs: three hosts, taps on them, and frames that are really sent.

A rig hands out adaptors, makes taps appear, sends frames from behind a tap, and says who heard
them. In the Linux rig every host is a network namespace and a tap is one end of a veth pair.
"""

import asyncio
import os
import secrets
import select
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from deploy.lab import netns, shell
from tests.contract.network_packets import to_bytes
from vserver.network.fabric import Fabric
from vserver.network.frame import Frame
from vserver.network.linux import LinuxNetwork
from vserver.network.memory import MemoryNetwork
from vserver.network.port import Network

HOSTS = ("10.99.0.1", "10.99.0.2", "10.99.0.3")  # a host is known by its tunnel end
A, B, C = HOSTS
Heard = set[tuple[str, str]]  # (host, device)
_QUIET = 0.08  # s without a frame: whoever was to hear one has heard it


class Rig(Protocol):
    def network(self, host: str) -> Network:
        """A new adaptor, as after a restart of the agent."""
        ...

    def plug(self, host: str, device: str) -> None:
        """A tap appears, on no bridge."""
        ...

    def plug_into(self, host: str, device: str, vni: int) -> None:
        """A tap appears on a VNI's bridge, made by somebody else."""
        ...

    def answer(self, host: str, device: str, mac: str, ip: str) -> None:
        """The guest behind this tap has these addresses, and answers for them from now on."""
        ...

    async def send(self, host: str, device: str, frames: Sequence[Frame]) -> list[Heard]: ...

    async def flood(self, host: str, device: str, frame: Frame, seconds: float) -> tuple[int, int]:
        """How many frames were sent in that time, at a pace of 500 a second, and how many heard."""
        ...

    def tamper(self, host: str, device: str) -> None:
        """Somebody empties the port's rules by hand."""
        ...

    def close(self) -> None: ...


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self._now = 0.0

    def now_ms(self) -> int:
        return int(self._now * 1000)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += seconds


class MemoryRig:
    def __init__(self) -> None:
        self._clock = ManualClock()
        self._answering: Heard = set()
        self._fabric = Fabric(
            self._clock,
            plugs_itself=False,
            awake=lambda host, device: (host, device) in self._answering,
        )

    def network(self, host: str) -> Network:
        return MemoryNetwork(self._fabric.host(host))

    def plug(self, host: str, device: str) -> None:
        self._fabric.host(host).plug(device)

    def plug_into(self, host: str, device: str, vni: int) -> None:
        self._fabric.host(host).plug(device, vni)

    def answer(self, host: str, device: str, mac: str, ip: str) -> None:
        """Whatever its addresses are."""
        self._answering.add((host, device))

    async def send(self, host: str, device: str, frames: Sequence[Frame]) -> list[Heard]:
        return [set(self._fabric.send(host, device, frame)) for frame in frames]

    async def flood(self, host: str, device: str, frame: Frame, seconds: float) -> tuple[int, int]:
        count = int(seconds * 500)
        heard = 0
        for _ in range(count):
            heard += len(self._fabric.send(host, device, frame))
            await self._clock.sleep(1 / 500)
        return count, heard

    def tamper(self, host: str, device: str) -> None:
        self._fabric.host(host).tamper(device)

    def close(self) -> None:
        """Nothing outlives the test."""


class LinuxRig:
    def __init__(self) -> None:
        self._prefix = f"vsn{os.getpid()}{secrets.token_hex(2)}"
        self._spaces = [self._space(host) for host in HOSTS]
        self._switch, self._guests = f"{self._prefix}sw", f"{self._prefix}vm"
        self._sockets: dict[tuple[str, str], socket.socket] = {}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for name in (*self._spaces, self._switch, self._guests):
            netns.create(name)
            self._quieten(name)
        shell.run(["ip", "-n", self._switch, "link", "add", "under", "type", "bridge"])
        shell.run(["ip", "-n", self._switch, "link", "set", "under", "up"])
        for number, host in enumerate(HOSTS):
            space, port = self._space(host), f"p{number}"
            shell.ip_batch(
                [
                    f"link add eth0 type veth peer name {port} netns {self._switch}",
                    f"addr add {host}/24 dev eth0",
                    "link set eth0 up",
                ],
                netns=space,
            )
            shell.ip_batch([f"link set {port} master under up"], netns=self._switch)

    def _quieten(self, space: str) -> None:
        """No IPv6 by itself on veth ends: only what a test sends is on the wires."""
        shell.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"], netns=space)

    def _space(self, host: str) -> str:
        return f"{self._prefix}h{HOSTS.index(host)}"

    def network(self, host: str) -> Network:
        return LinuxNetwork(host, netns=self._space(host))

    def plug(self, host: str, device: str) -> None:
        guest = f"h{HOSTS.index(host)}{device}"
        commands = [
            f"link add {device} type veth peer name {guest} netns {self._guests}",
            f"link set {device} up",
        ]
        shell.ip_batch(commands, netns=self._space(host))
        shell.ip_batch([f"link set {guest} up arp off"], netns=self._guests)
        self._sockets[host, device] = netns.call_in(self._guests, lambda: _listener(guest))

    def answer(self, host: str, device: str, mac: str, ip: str) -> None:
        """By its own kernel."""
        guest = f"h{HOSTS.index(host)}{device}"
        shell.ip_batch([f"link set {guest} address {mac} arp on"], netns=self._guests)
        if ":" in ip:  # asks nobody whether the address is its own
            settings = [f"net.ipv6.conf.{guest}.{key}=0" for key in ("accept_dad", "disable_ipv6")]
            shell.run(["sysctl", "-qw", *settings], netns=self._guests)
        shell.ip_batch([f"addr add {ip} dev {guest}"], netns=self._guests)

    def hear(self, host: str, device: str) -> list[bytes]:
        """What has come out of this tap since the last time that anybody listened there."""
        return _drain(self._sockets[host, device])

    def plug_into(self, host: str, device: str, vni: int) -> None:
        """The tap is on the bridge before it is up, as libvirt does it."""
        bridge = f"br-{vni}"
        space = self._space(host)
        if not shell.succeeds(["ip", "link", "show", bridge], netns=space):
            shell.ip_batch([f"link add {bridge} type bridge", f"link set {bridge} up"], netns=space)
        self.plug(host, device)
        shell.ip_batch([f"link set {device} master {bridge}"], netns=space)

    def plug_tun(self, host: str, device: str, vni: int) -> None:
        """A tap as QEMU makes it, with nobody behind it."""
        commands = [f"tuntap add {device} mode tap", f"link set {device} master br-{vni} up"]
        shell.ip_batch(commands, netns=self._space(host))

    async def send(self, host: str, device: str, frames: Sequence[Frame]) -> list[Heard]:
        return await asyncio.to_thread(self._send, host, device, frames)

    def _send(self, host: str, device: str, frames: Sequence[Frame]) -> list[Heard]:
        run = secrets.token_bytes(4)
        marks = [run + number.to_bytes(4, "big") for number in range(len(frames))]
        for frame, mark in zip(frames, marks, strict=True):
            self._sockets[host, device].send(to_bytes(frame, mark))
        heard: list[Heard] = [set() for _ in frames]
        while packets := self._listen():
            for where, packet in packets:
                if packet[-8:-4] == run:
                    heard[int.from_bytes(packet[-4:], "big")].add(where)
        return heard

    def _listen(self) -> list[tuple[tuple[str, str], bytes]]:
        """What has come in on all taps; nothing if it stays quiet."""
        names = {listener: name for name, listener in self._sockets.items()}
        ready, _, _ = select.select(list(names), [], [], _QUIET)
        return [(names[one], packet) for one in ready for packet in _drain(one)]

    async def flood(self, host: str, device: str, frame: Frame, seconds: float) -> tuple[int, int]:
        return await asyncio.to_thread(self._flood, host, device, frame, seconds)

    def _flood(self, host: str, device: str, frame: Frame, seconds: float) -> tuple[int, int]:
        run, sent, heard = secrets.token_bytes(8), 0, 0
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            while sent < elapsed * 500:
                self._sockets[host, device].send(to_bytes(frame, run))
                sent += 1
            heard += sum(packet.endswith(run) for _, packet in self._listen_briefly())
        while packets := self._listen():
            heard += sum(packet.endswith(run) for _, packet in packets)
        return sent, heard

    def _listen_briefly(self) -> list[tuple[tuple[str, str], bytes]]:
        time.sleep(0.002)
        return [(name, packet) for name, one in self._sockets.items() for packet in _drain(one)]

    def tamper(self, host: str, device: str) -> None:
        self.run(host, f"nft flush chain bridge vsignal from-{device}")

    def run(self, host: str, command: str) -> str:
        """A command that somebody gives on a host, by hand."""
        return shell.run(command.split(), netns=self._space(host))

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()
        netns.remove([*self._spaces, self._switch, self._guests])


def _listener(device: str) -> socket.socket:
    every_protocol = 3
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every_protocol))
    one.bind((device, every_protocol))
    one.setblocking(False)
    return one


def _drain(one: socket.socket) -> list[bytes]:
    packets = []
    with suppress(BlockingIOError):
        while True:
            packet, where = one.recvfrom(65535)
            if where[2] != socket.PACKET_OUTGOING:
                packets.append(packet)
    return packets


def why_no_linux_rig() -> str:
    """Empty if the Linux rig can be built here."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    missing = [name for name in ("nft", "ip", "sysctl") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""
