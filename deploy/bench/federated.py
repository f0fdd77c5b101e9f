"""A center above other domains: what a lookup costs there, and what a million VMs below it take."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.pb.vsignal.v1 import federation_pb2 as fpb
from common.pb.vsignal.v1 import federation_pb2_grpc
from common.pb.vsignal.v1 import signaling_pb2 as pb
from deploy.bench import domains, h2load
from deploy.bench.daemon import (
    OPERATOR,
    Process,
    free_port,
    free_ports,
    lookup,
    running,
    scratch,
)
from deploy.bench.entry import Entry, compared
from deploy.bench.lookup import LOAD, LOOKUP, one
from deploy.bench.population import Guest, Population

DOMAINS, PROCESSES = 50, 2
PATIENCE_S = 900.0  # a million VMs beside other work
MEASURED_S = 10.0  # of changes


@contextmanager
def named(
    folder: Path, name: str, below: dict[str, str], database: Path | None = None
) -> Iterator[Process]:
    """`vcenter run` for a domain. `below`: its children by name, and where they listen."""
    port = free_port()
    config = folder / f"{name}.toml"
    store = "memory" if database is None else f"sqlite:{database}"
    children = "".join(
        f'[[domains]]\nname = "{child}"\naddress = "{address}"\nrelation = "child"\n'
        for child, address in below.items()
    )
    config.write_text(
        f'domain = "{name}"\nlisten_plaintext = ["127.0.0.1:{port}"]\nstore = "{store}"\n'
        f'lease_seconds = 300\ndrain_seconds = 0.5\n[log]\nlevel = "warning"\n{children}'
    )
    with running(config, f"127.0.0.1:{port}") as server:
        yield server


def lookups(vms: int, rounds: int) -> list[Entry]:
    """The same VM, asked for at the center that follows its domain and at its own vCenter."""
    population = Population(vms)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        population.write(folder / "full.db")
        east = stack.enter_context(named(folder, "east", {}, folder / "full.db"))
        center = stack.enter_context(named(folder, "center", {"east": east.target}))
        _followed(center, 1, vms)
        afar: list[float] = []
        here: list[float] = []
        for number, guest in enumerate(population.sample(rounds)):
            request = one(guest, number % 3)
            _check(center, request, guest, pb.CERTAINTY_CACHED)
            _check(east, request, guest, pb.CERTAINTY_AUTHORITATIVE)
            message = request.SerializeToString()
            here.append(h2load.rate(east, LOOKUP, message, folder))
            afar.append(h2load.rate(center, LOOKUP, message, folder))
    rival = "the same lookup at the VM's own vCenter"
    return [compared("lookup-federated", "calls/s", afar, rival, here, vms=vms, load=LOAD)]


def scale(vms: int, rounds: int) -> list[Entry]:
    """A center begins with nothing over 50 domains; then their changes, as fast as it reads."""
    del rounds  # it takes minutes
    each = vms // DOMAINS
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        ports = dict(enumerate(free_ports(DOMAINS)))
        below = {domains.name(n): f"127.0.0.1:{port}" for n, port in ports.items()}
        simulated = [stack.enter_context(_simulated(each, ports, n)) for n in range(PROCESSES)]
        with named(folder, "alone", {}) as empty:
            before = empty.memory_mib()
        begun = time.perf_counter()
        center = stack.enter_context(named(folder, "center", below))
        _followed(center, DOMAINS, each * DOMAINS, simulated)
        rebuilt = time.perf_counter() - begun
        for process in simulated:
            process.send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        cpu, first = center.cpu_seconds(), _revisions(center)
        time.sleep(MEASURED_S)
        rate = (_revisions(center) - first) / MEASURED_S
        busy = (center.cpu_seconds() - cpu) / MEASURED_S
        memory = center.memory_mib()
    conditions = {
        "vms": each * DOMAINS,
        "domains": DOMAINS,
        "rebuilt_in_s": round(rebuilt, 1),
        "cpu_of_the_center": round(busy, 2),
        "resident_mib": round(memory),
    }
    over = (memory - before) * 1e6 / (each * DOMAINS)
    read = vms / rebuilt
    return [
        compared("federation-memory", "MiB per 1M VMs", [over], "empty", [before], **conditions),
        compared("federation-rebuild", "VMs/s", [read], "changes/s later", [rate], **conditions),
    ]


@contextmanager
def _simulated(vms: int, ports: dict[int, int], part: int) -> Iterator["subprocess.Popen[bytes]"]:
    """One process of several, with its share of the domains."""
    places = [f"{n}:{port}" for n, port in ports.items() if n % PROCESSES == part]
    command = [sys.executable, "-m", "deploy.bench.domains", str(vms), *places]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def _domains(center: Process) -> fpb.Domain:
    with center.channel() as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        return stub.ListDomains(fpb.ListDomainsRequest(), metadata=OPERATOR, timeout=60).domain


def _revisions(center: Process) -> int:
    """Every change of a simulated domain has a revision of its own."""
    return sum(domain.revision for domain in _domains(center).domains)


def _followed(
    center: Process, count: int, vms: int, tellers: "Sequence[subprocess.Popen[bytes]]" = ()
) -> None:
    def complete() -> bool:
        if any(teller.poll() is not None for teller in tellers):
            raise RuntimeError("a simulated domain has ended")
        below = _domains(center).domains
        current = [d for d in below if d.state == fpb.DOMAIN_STATE_CURRENT]
        return len(current) == count and sum(d.vms for d in current) >= vms

    _until(complete)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("the center did not read all domains in time")
        time.sleep(0.2)


def _check(
    server: Process, request: pb.LookupRequest, guest: Guest, certainty: "pb.Certainty.ValueType"
) -> None:
    (result,) = lookup(server, request).results
    if (result.vm_id, result.certainty) != (guest.vm_id, certainty):
        raise RuntimeError(f"{server.target} did not find the VM as it should: {result}")
