"""Runs the simulation on a mutant: `python -m tests.simulation.mutation [NAME…]`, all if none.

The module is compiled from changed source when it is imported, so a mutant needs a process of its
own, in which nothing of ours was imported before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from tests.simulation.mutants import MUTANTS, Mutant, mutated

ROOT = Path(__file__).parents[2]
SEEDS = 300


class _Loader(SourceFileLoader):
    mutant: Mutant

    def get_code(self, fullname: str) -> CodeType:
        """From the source, never from the cache of compiled modules."""
        source = Path(self.path).read_text()
        return compile(mutated(self.mutant, source), self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._mutant.module:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None and isinstance(spec.loader, SourceFileLoader)
        loader = _Loader(spec.loader.name, spec.loader.path)
        loader.mutant = self._mutant
        spec.loader = loader
        return spec


def caught(name: str, first: int, seeds: int) -> str:
    """In this process: which seed caught it, and by what; "" if none did."""
    mutant = next(m for m in MUTANTS if m.name == name)
    assert mutant.module not in sys.modules
    sys.meta_path.insert(0, _Finder(mutant))
    from deploy.simulation.__main__ import WORLDS

    tell = WORLDS[mutant.world]
    for seed in range(first, first + seeds):
        told = tell(seed)
        if told.violations:
            return f"seed {seed}: {told.violations[0]}"
    return ""


def in_a_process(name: str, seeds: int = SEEDS) -> str:
    """The same, anywhere."""
    command = [sys.executable, "-m", "tests.simulation.mutation", "--here", name]
    command += ["--seeds", str(seeds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


def main() -> int:
    said = _arguments()
    if said.here:
        print(caught(said.here, 1, said.seeds))
        return 0
    names = said.names or [mutant.name for mutant in MUTANTS]
    missed = []
    with ThreadPoolExecutor(said.jobs) as pool:
        begun = time.monotonic()
        for name, how in zip(
            names, pool.map(lambda n: in_a_process(n, said.seeds), names), strict=True
        ):
            print(f"{time.monotonic() - begun:6.1f} s  {name}: {how or 'NOT CAUGHT'}", flush=True)
            missed += [name] if not how else []
    print(f"{len(names) - len(missed)} of {len(names)} mutants caught within {said.seeds} seeds")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulate --mutants", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
