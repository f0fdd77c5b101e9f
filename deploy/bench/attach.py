"""Ten thousand agents on one vCenter: held for two minutes; and all of them coming back at once.

Each is a connection and a stream of its own; they live in a few processes beside the vCenter's, on
the same cores, so that the time until all are attached is theirs as much as the vCenter's.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TypeAlias

from common.pb.vsignal.v1 import directory_pb2 as directory
from common.pb.vsignal.v1 import directory_pb2_grpc
from common.pb.vsignal.v1 import types_pb2 as types
from deploy.bench.agents import VMS_EACH, shared
from deploy.bench.daemon import OPERATOR, Process, free_port, scratch, vcenter
from deploy.bench.entry import Entry, versions

PROCESSES = 4
EVERY_S = 10.0
HELD_S = 120.0
LEASE_S = 30

Client: TypeAlias = "subprocess.Popen[str]"


def run(agents: int, rounds: int) -> list[Entry]:
    """One round, however many are asked for."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        database = folder / "ledger.db"
        shared(agents).write(database)
        at = stack.enter_context(vcenter(folder, database, lease=LEASE_S))
        empty, began = at.memory_mib(), time.monotonic()
        clients = _come(stack, at.target, agents)
        _counts(clients)
        attached, busy = time.monotonic() - began, at.cpu_seconds()
        time.sleep(HELD_S)
        cpu = (at.cpu_seconds() - busy) / HELD_S
        resident, listed = at.memory_mib(), _attached(at)
        told = _counts(clients, "now")
    held = min(listed, told["attached"] - told["lost"])
    entry = Entry(
        name="attach",
        value=held,
        unit="agents",
        baseline="agents that came",
        baseline_value=agents,
        ratio=round(held / agents, 4),
        conditions={
            "held_s": HELD_S,
            "attached_after_s": round(attached, 1),
            "cpu_s_until_attached": round(busy, 1),
            "cpu_percent_of_a_core_held": round(cpu * 100, 1),
            "mib_before": round(empty, 1),
            "mib_held": round(resident, 1),
            "told": dict(told),
            **_conditions(agents),
        },
    )
    return [entry]


def again(agents: int, rounds: int) -> list[Entry]:
    """The vCenter is restarted under them: from its start until all are back, beside the first
    time, when they held nothing."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        database, port = folder / "ledger.db", free_port()
        shared(agents).write(database)
        with vcenter(folder, database, LEASE_S, port) as at:
            began = time.monotonic()
            clients = _come(stack, at.target, agents)
            first = _counts(clients)
            first_s, first_cpu = time.monotonic() - began, at.cpu_seconds()
        began = time.monotonic()
        with vcenter(folder, database, LEASE_S, port) as at:
            both = _counts(clients, "again")
            second_s, second_cpu = time.monotonic() - began, at.cpu_seconds()
    entry = Entry(
        name="reattach",
        value=round(second_s, 1),
        unit="s until all are back",
        baseline="coming anew",
        baseline_value=round(first_s, 1),
        ratio=round(second_s / first_s, 3),
        conditions={
            "cpu_s_anew": round(first_cpu, 1),
            "cpu_s_again": round(second_cpu, 1),
            "told_anew": dict(first),
            "told_again": dict(both - first),
            **_conditions(agents),
        },
    )
    return [entry]


def _conditions(agents: int) -> dict[str, object]:
    return {
        "connections": agents,
        "client_processes": PROCESSES,
        "vms_each": VMS_EACH,
        "report_every_s": EVERY_S,
        **versions(),
    }


def _come(stack: ExitStack, target: str, agents: int) -> list[Client]:
    shares = [agents * number // PROCESSES for number in range(PROCESSES + 1)]
    return [
        stack.enter_context(_agents(target, first, last - first, agents))
        for first, last in pairwise(shares)
    ]


@contextmanager
def _agents(target: str, first: int, count: int, of: int) -> Iterator[Client]:
    """The share of one process."""
    arguments = [target, str(first), str(count), str(of), str(EVERY_S)]
    command = [sys.executable, "-m", "deploy.bench.agents", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _counts(clients: Sequence[Client], ask: str = "") -> Counter[str]:
    """Of all processes together; see `deploy.bench.agents` for what they answer to."""
    if ask:
        for client in clients:
            print(ask, file=client.stdin, flush=True)
    told: Counter[str] = Counter()
    for client in clients:
        assert client.stdout is not None
        line = client.stdout.readline()
        if not line:
            raise RuntimeError("simulated agents ended; what they said is above")
        told.update(json.loads(line))
    return told


def _attached(at: Process) -> int:
    """Whom the ledger believes to be there."""
    attached, request = 0, directory.ListServersRequest(page_size=1000)
    with at.channel() as link:
        stub = directory_pb2_grpc.DirectoryStub(link)
        while True:
            page = stub.ListServers(request, metadata=OPERATOR, timeout=60)
            attached += sum(s.server.liveness == types.LIVENESS_ATTACHED for s in page.servers)
            if not page.next_page_token:
                return attached
            request.page_token = page.next_page_token
