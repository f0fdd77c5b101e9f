"""A lookup beside what etcd answers the same load with: the value of one key, as it is stored."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from common.pb.etcd import rpc_pb2, rpc_pb2_grpc
from deploy.bench import h2load
from deploy.bench.daemon import PATIENCE_S, Process, populated, scratch
from deploy.bench.entry import Entry, compared
from deploy.bench.lookup import LOAD, LOOKUP, checked, one
from deploy.bench.population import Population
from deploy.etcd.members import Member, free_ports, program

RANGE = "/etcdserverpb.KV/Range"
KEY, VALUE = b"vm/1", b"x" * 200


def run(vms: int, rounds: int) -> list[Entry]:
    """Serializable: from the member's own copy, without asking the others; we do the same."""
    population = Population(vms)
    request = rpc_pb2.RangeRequest(key=KEY, serializable=True).SerializeToString()
    ours, theirs, size = [], [], 0
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        etcd = stack.enter_context(member(folder / "etcd"))
        vcenter = stack.enter_context(populated(folder, population))
        for number, guest in enumerate(population.sample(rounds)):
            key = one(guest, number % 3)
            size = checked(vcenter, key, [guest])
            theirs.append(h2load.rate(etcd, RANGE, request, folder))
            ours.append(h2load.rate(vcenter, LOOKUP, key.SerializeToString(), folder))
    version = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    rival = f"etcd, one member, serializable Range of a {len(VALUE)}-byte value"
    conditions = {
        "vms": vms,
        "load": LOAD,
        "response_bytes": size,
        "etcd": version.stdout.split()[2],
    }
    return [compared("lookup-etcd", "calls/s", ours, rival, theirs, **conditions)]


@contextmanager
def member(folder: Path) -> Iterator[Process]:
    """One that has the key; its data is in `folder`."""
    alone = Member("m0", folder, *free_ports(2))
    command = alone.command(f"m0={alone.peer}", "bench")
    etcd = subprocess.Popen(command, text=True, stderr=subprocess.DEVNULL)  # it says who hung up
    server = Process(etcd, alone.address)
    try:
        with server.channel() as channel:
            stub: rpc_pb2_grpc.KVStub = rpc_pb2_grpc.KVStub(channel)
            put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=KEY, value=VALUE))
            write = rpc_pb2.TxnRequest(success=[put])
            stub.Txn(write, wait_for_ready=True, timeout=PATIENCE_S)
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.stop()
