"""What a lookup costs with the ledger full: beside a bare echo, and by the thousand."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1.types_pb2 import VmKey
from deploy.bench import bare, h2load
from deploy.bench.daemon import Process, lookup, populated, scratch
from deploy.bench.daemon import bare as bare_server
from deploy.bench.entry import Entry, compared
from deploy.bench.population import Guest, Population

LOOKUP = "/vsignal.v1.Signaling/Lookup"
BATCH = 1_000
LOAD = f"h2load -c{h2load.CLIENTS} -m{h2load.STREAMS}, 2 s after 1 s, servers on loopback"


@dataclass
class Pair:
    """The subject, the echo, and where their files are."""

    vcenter: Process
    echo: Process
    folder: Path

    def ours(self, message: bytes) -> float:
        return h2load.rate(self.vcenter, LOOKUP, message, self.folder)

    def bare(self, size: int) -> float:
        return h2load.rate(self.echo, bare.ECHO, b"x" * size, self.folder)


def unary(vms: int, rounds: int) -> list[Entry]:
    """A lookup by vm_id, by MAC and by IP in turns; another VM each time."""
    population = Population(vms)
    with ExitStack() as stack:
        pair = _start(stack, population)
        ours: list[float] = []
        echo: list[float] = []
        size = 0
        for number, guest in enumerate(population.sample(rounds)):
            request = one(guest, number % 3)
            size = checked(pair.vcenter, request, [guest])
            echo.append(pair.bare(size))
            ours.append(pair.ours(request.SerializeToString()))
    rival = f"grpc.aio echo of {size} bytes"
    conditions = {"vms": vms, "load": LOAD, "response_bytes": size}
    return [compared("lookup-unary", "calls/s", ours, rival, echo, **conditions)]


def batch(vms: int, rounds: int) -> list[Entry]:
    population = Population(vms)
    with ExitStack() as stack:
        pair = _start(stack, population)
        guests = population.sample(min(BATCH, vms))
        request = pb.LookupRequest(keys=[VmKey(vm_id=g.vm_id) for g in guests])
        size = checked(pair.vcenter, request, guests)
        message = request.SerializeToString()
        ours, echo = [], []
        for _ in range(rounds):
            echo.append(pair.bare(size // len(guests)))
            ours.append(pair.ours(message) * len(guests))
    rival = f"grpc.aio echo calls of {size // len(guests)} bytes"
    conditions = {"vms": vms, "ids_a_call": len(guests), "load": LOAD, "response_bytes": size}
    return [compared("lookup-batch", "ids/s", ours, rival, echo, **conditions)]


def one(guest: Guest, kind: int) -> pb.LookupRequest:
    """By the first, second or third of a VM's keys."""
    if kind == 1:
        return pb.LookupRequest(keys=[VmKey(mac=VmKey.MacKey(vni=guest.vni, mac=guest.mac))])
    if kind == 2:
        return pb.LookupRequest(keys=[VmKey(ip=VmKey.IpKey(vni=guest.vni, ip=guest.ip))])
    return pb.LookupRequest(keys=[VmKey(vm_id=guest.vm_id)])


def checked(server: Process, request: pb.LookupRequest, guests: list[Guest]) -> int:
    """The answer's size, once it was seen to be right."""
    response = lookup(server, request)
    found = [r.vm_id for r in response.results if r.found and r.profile_hash and r.vtep_address]
    if found != [g.vm_id for g in guests]:
        raise RuntimeError(f"{len(found)} of {len(guests)} VMs were found")
    return response.ByteSize()


def _start(stack: ExitStack, population: Population) -> Pair:
    folder = stack.enter_context(scratch())
    echo = stack.enter_context(bare_server("echo"))
    return Pair(stack.enter_context(populated(folder, population)), echo, folder)
