"""The processes under test: our vCenter as it is shipped, and bare servers beside it."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2_grpc
from common.pb.vsignal.v1.types_pb2 import VmKey
from common.rpc import CLIENT_OPTIONS, identity
from deploy.bench.population import Population

OPERATOR = identity("operator/bench")
PATIENCE_S = 180.0
NOBODY = "00000000-0000-0000-0000-000000000001"


Connect = Callable[[str], grpc.Channel]


def in_plain_text(target: str) -> grpc.Channel:
    return grpc.insecure_channel(target, options=list(CLIENT_OPTIONS))


class Process:
    """One server in a process of its own, at `target`."""

    def __init__(
        self, process: "subprocess.Popen[str]", target: str, connect: Connect = in_plain_text
    ) -> None:
        self.process = process
        self.target = target
        self._connect = connect

    def memory_mib(self) -> float:
        """Resident, as the kernel counts it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (x for x in status.splitlines() if x.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def channel(self) -> grpc.Channel:
        return self._connect(self.target)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vsignal-bench-") as folder:
        yield Path(folder)


@contextmanager
def vcenter(
    folder: Path, database: Path | None = None, lease: int = 300, port: int = 0
) -> Iterator[Process]:
    """`vcenter run` on a port of loopback, any unless one is given; ready when it has answered a
    lookup."""
    port = port or free_port()
    config = folder / f"vcenter-{port}.toml"
    store = "memory" if database is None else f"sqlite:{database}"
    config.write_text(
        f'listen_plaintext = ["127.0.0.1:{port}"]\nstore = "{store}"\n'
        f'lease_seconds = {lease}\ndrain_seconds = 0.5\n[log]\nlevel = "warning"\n'
    )
    with running(config, f"127.0.0.1:{port}") as server:
        yield server


@contextmanager
def running(config: Path, target: str, connect: Connect = in_plain_text) -> Iterator[Process]:
    """`vcenter run` with this configuration; its log is beside it."""
    command = [sys.executable, "-c", "from vcenter.cli import main; main()", "run"]
    with config.with_suffix(".log").open("w") as out:
        process = subprocess.Popen(
            [*command, "--config", str(config)], stdout=out, stderr=out, text=True
        )
        server = Process(process, target, connect)
        try:
            _first_lookup(server)
            yield server
        finally:
            server.stop()


@contextmanager
def bare(program: str, *arguments: str) -> Iterator[Process]:
    """One of `deploy.bench.bare`'s servers."""
    port = free_port()
    command = [sys.executable, "-m", "deploy.bench.bare", program, str(port), *arguments]
    server = Process(subprocess.Popen(command, text=True), f"127.0.0.1:{port}")
    try:
        with server.channel() as channel:
            grpc.channel_ready_future(channel).result(PATIENCE_S)
        yield server
    finally:
        server.stop()


@contextmanager
def populated(folder: Path, population: Population) -> Iterator[Process]:
    database = folder / f"{population.count}.db"
    if not database.exists():
        population.write(database)
    with vcenter(folder, database) as server:
        yield server


def lookup(server: Process, request: pb.LookupRequest) -> pb.LookupResponse:
    with server.channel() as channel:
        stub = signaling_pb2_grpc.SignalingStub(channel)
        return stub.Lookup(request, metadata=OPERATOR, timeout=10)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones: each is held until all are known."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _first_lookup(server: Process) -> None:
    nobody = pb.LookupRequest(keys=[VmKey(vm_id=NOBODY)])
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if server.process.poll() is not None:
            raise RuntimeError("the vCenter ended; its log is beside its configuration")
        try:
            lookup(server, nobody)
            return
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
