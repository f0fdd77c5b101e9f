"""What a full ledger takes: resident memory, and time until it serves again."""

import time

from deploy.bench.daemon import scratch, vcenter
from deploy.bench.entry import Entry, compared
from deploy.bench.lookup import checked, one
from deploy.bench.population import Population

MILLION = 1_000_000


def memory(vms: int, rounds: int) -> list[Entry]:
    """Over a process that serves an empty ledger; settled after a start from SQLite."""
    del rounds  # it is the same every time
    population = Population(vms)
    with scratch() as folder:
        with vcenter(folder, folder / "empty.db") as server:
            empty = server.memory_mib()
        population.write(folder / "full.db")
        with vcenter(folder, folder / "full.db") as server:
            (guest,) = population.sample(1)
            checked(server, one(guest, 1), [guest])
            full = server.memory_mib()
    over = (full - empty) * MILLION / vms
    conditions = {"vms": vms, "resident_mib": round(full), "claims_a_vm": 2}
    rival = "the empty process"
    return [compared("memory", "MiB per 1M VMs", [over], rival, [empty], **conditions)]


def restart(vms: int, rounds: int) -> list[Entry]:
    """From starting the process to the first answered lookup; beside an empty database."""
    population = Population(vms)
    full: list[float] = []
    empty: list[float] = []
    with scratch() as folder:
        population.write(folder / "full.db")
        for _ in range(min(rounds, 3)):
            for seconds, name in ((empty, "empty.db"), (full, "full.db")):
                started = time.perf_counter()
                with vcenter(folder, folder / name):
                    seconds.append(time.perf_counter() - started)
        size = (folder / "full.db").stat().st_size >> 20
    conditions = {"vms": vms, "database_mib": size, "file_cache": "warm"}
    return [compared("restart", "s", full, "an empty database", empty, **conditions)]
