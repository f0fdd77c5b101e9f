"""`./scripts/simulate --seeds N [--from S]`: 0 if nothing that must always hold was violated."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from deploy.simulation import journey, story
from deploy.simulation.telling import Told

WORLDS = {"one": story.tell, "gated": story.tell_gated, "domains": journey.tell}
TAIL = 60


def main() -> int:
    said = _arguments()
    begun = time.monotonic()
    seeds = range(said.first, said.first + said.seeds)
    totals: Counter[str] = Counter()
    digest = hashlib.sha256()
    bad = []
    for told in _told(said.world, seeds, said.jobs, said.story):
        digest.update(told.digest.encode())
        totals.update({"faults": told.faults, "virtual seconds": round(told.seconds)})
        totals.update(told.moves)
        if said.story or said.log:
            print("\n".join(told.lines))
        if told.violations:
            bad.append(told.seed)
            _complain(told, said.world, whole=said.story or said.log)
            if said.stop:
                break
    print(f"{len(seeds)} seeds in {time.monotonic() - begun:.1f} s: {_summary(totals)}")
    print(f"event log {digest.hexdigest()}")
    print(f"violated by {len(bad)} seeds: {' '.join(map(str, bad))}" if bad else "0 violations")
    return 1 if bad else 0


def _told(world: str, seeds: range, jobs: int, keep: bool) -> Iterator[Told]:
    """In the order of the seeds, however many processes work on them."""
    tell = WORLDS[world]
    if jobs == 1 or len(seeds) == 1:
        yield from (tell(seed, keep=keep) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(tell, seeds)


def _complain(told: Told, world: str, *, whole: bool) -> None:
    for text in told.violations:
        print(f"seed {told.seed}: {text}")
    if not whole:
        first = next(n for n, line in enumerate(told.lines) if " VIOLATED " in line)
        print("\n".join(told.lines[max(0, first - TAIL) : first + 1]))
    again = f"./scripts/simulate --world {world} --from {told.seed} --seeds 1 --story"
    print(f"the whole story: {again}", flush=True)


def _summary(totals: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in totals.items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many (300)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first (1)")
    parser.add_argument(
        "--world",
        choices=WORLDS,
        default="one",
        help="one vCenter, the same with gates, or domains",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--story", action="store_true", help="print all, with the daemons' logs")
    parser.add_argument("--log", action="store_true", help="print the event log")
    parser.add_argument("--stop", action="store_true", help="end with the first bad seed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
