"""A tenant's endpoint that measures: its own namespace, plugged into a host's bridge.

It asks what a tenant would ask (does it answer? on which ports? how long was it gone?)
and sees what a tenant would see, frames included. Behaviour is tested, not rules.
"""

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.lab import netns, shell
from deploy.lab.blackout import PingRun
from deploy.lab.capture import Capture
from deploy.lab.host import Host
from deploy.lab.names import CHECKOUT


class Probe:
    """An endpoint `name` with `address` (`10.1.0.9/24`) on `bridge` of a host."""

    def __init__(self, host: Host, name: str, bridge: str, address: str) -> None:
        self.host = host
        self.netns = host.names.probe(name)
        self.link = f"p-{name}"[:15]
        self.bridge = bridge
        self.address = address

    def up(self) -> "Probe":
        netns.create(self.netns)
        ours, theirs = f"{self.link} netns {self.host.netns}", f"eth0 netns {self.netns}"
        shell.ip_batch([f"link add {ours} type veth peer name {theirs}"])
        shell.ip_batch([f"link set {self.link} master {self.bridge} up"], netns=self.host.netns)
        commands = [f"addr add {self.address} dev eth0", "link set eth0 up"]
        shell.ip_batch(commands, netns=self.netns)
        return self

    def down(self) -> None:
        netns.remove([self.netns])

    @property
    def mac(self) -> str:
        """The probe's own MAC, for who writes the FDB by hand."""
        return shell.run(["cat", "/sys/class/net/eth0/address"], netns=self.netns).strip()

    def run(self, argv: list[str], *, check: bool = True) -> str:
        """Run a command at this endpoint."""
        return shell.run(argv, netns=self.netns, check=check)

    def ping(self, address: str, timeout: float = 1.0) -> bool:
        """Whether one echo out of as many as fit in the time is answered."""
        argv = ["ping", "-q", "-i", "0.1", "-c", "1", "-w", str(max(1, round(timeout))), address]
        return shell.succeeds(argv, netns=self.netns)

    def tcp_connects(self, address: str, port: int, timeout: float = 1.0) -> bool:
        """Whether a TCP connection comes about."""
        try:
            self._connect(address, port, timeout).close()
        except OSError:
            return False
        return True

    def tcp_read(self, address: str, port: int, timeout: float = 2.0) -> bytes:
        """What a service says first, such as SSH's banner."""
        with self._connect(address, port, timeout) as wire:
            return wire.recv(4096)

    def http_get(self, address: str, port: int = 80, timeout: float = 2.0) -> str:
        """The body of the page at `/`: a guest answers with its name."""
        with self._connect(address, port, timeout) as wire:
            wire.sendall(f"GET / HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: wire.recv(4096), b""))
        return answer.partition(b"\r\n\r\n")[2].decode().strip()

    def download_rate(self, address: str, path: str, seconds: float = 3.0) -> float:
        """Mbit/s at which a page comes, over so much time or until its end."""
        start = time.monotonic()
        received = 0
        with self._connect(address, 80, 5.0) as wire:
            wire.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            while time.monotonic() < start + seconds and (piece := wire.recv(65536)):
                received += len(piece)
        return received * 8e-6 / (time.monotonic() - start)

    def send_udp(self, address: str, mbit_per_second: float, seconds: float) -> int:
        """Send datagrams at a steady rate; how many bytes these were."""
        wire = netns.call_in(self.netns, lambda: socket.socket(type=socket.SOCK_DGRAM))
        payload = bytes(1400)
        start = time.monotonic()
        sent = 0
        with wire:
            while (passed := time.monotonic() - start) < seconds:
                while sent < passed * mbit_per_second * 125_000:
                    sent += wire.sendto(payload, (address, 9))  # "discard"
                time.sleep(0.001)
        return sent

    def _connect(self, address: str, port: int, timeout: float) -> socket.socket:
        wire = netns.call_in(self.netns, socket.socket)
        wire.settimeout(timeout)
        try:
            wire.connect((address, port))
        except OSError:
            wire.close()
            raise
        return wire

    def ping_every(self, address: str, interval_ms: float = 10.0) -> PingRun:
        """Pings, from now on; `stop()` of the result says how long the longest gap was."""
        file = self.host.names.work / f"ping-{secrets.token_hex(4)}"
        argv = [sys.executable, "-m", "deploy.lab.pinger", address, str(interval_ms), str(file)]
        inside = shell.inside(self.netns, argv)
        process = subprocess.Popen(inside, cwd=CHECKOUT, stdout=subprocess.PIPE)
        return PingRun(process, file).begun()

    def wait_ping(self, address: str, timeout: float = 20.0) -> None:
        """Return once the address answers."""
        deadline = time.monotonic() + timeout
        while not self.ping(address):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} does not answer {self.netns} in {timeout} s")

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """Record the frames that reach this endpoint, to prove that forged ones do not."""
        with Capture(self.netns, "eth0") as recording:
            yield recording
