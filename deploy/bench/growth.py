"""Does it get slower with the number of VMs? Time of a lookup and of a registration, and a plot."""

import asyncio
from itertools import islice
from pathlib import Path

from deploy.bench.daemon import Process, populated, scratch
from deploy.bench.entry import Entry, compared
from deploy.bench.h2load import rate
from deploy.bench.lookup import LOOKUP, one
from deploy.bench.plot import Line, save
from deploy.bench.population import Population
from deploy.bench.register import calls, member_of

STEPS = 2  # a hundredth, a tenth, all of them
NEW = 2_000
PLOT = Path("growth.svg")


def run(vms: int, rounds: int) -> list[Entry]:
    sizes = [vms // 10**n for n in range(STEPS, -1, -1)]
    lookups: dict[int, list[float]] = {}
    registers: dict[int, list[float]] = {}
    with scratch() as folder:
        for size in sizes:
            population = Population(size)
            with populated(folder, population) as server:
                message = one(population.sample(1)[0], 0).SerializeToString()
                lookups[size] = [
                    1e6 / rate(server, LOOKUP, message, folder, 1) for _ in range(rounds)
                ]
                registers[size] = [_register(server, population, n) for n in range(rounds)]
    save(PLOT, "Time a call, by VMs in the ledger", "µs", _lines(lookups, registers))
    found = []
    for name, times in (("lookup", lookups), ("register", registers)):
        rival = f"the same with {sizes[0]} VMs"
        most, least = times[sizes[-1]], times[sizes[0]]
        found.append(
            compared(f"growth-{name}", "µs", most, rival, least, by_vms={**times}, plot=str(PLOT))
        )
    return found


def _lines(*measured: dict[int, list[float]]) -> list[Line]:
    names = ("Lookup", "Register")
    return [
        Line(name, [(size, min(v)) for size, v in times.items()])
        for name, times in zip(names, measured, strict=True)
    ]


def _register(server: Process, population: Population, turn: int) -> float:
    """Microseconds for each of `NEW` VMs that were not there, beyond those that are."""
    more = Population(population.count + NEW * (turn + 1))
    more.networks, more.servers = population.networks, population.servers
    fresh = list(islice(more.guests(), population.count + NEW * turn, None))
    requests = [member_of(guest).SerializeToString() for guest in fresh]
    path = "/vsignal.v1.Signaling/Register"
    per_second, _ = asyncio.run(calls(server, path, requests))
    return 1e6 / per_second
