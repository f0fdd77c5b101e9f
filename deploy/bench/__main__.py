"""`./scripts/bench NAME… [--json FILE]`"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.bench.entry import Entry


def _relocation(rounds: int) -> list[Entry]:
    from deploy.bench.relocation import run

    return run(rounds)


BENCHES: dict[str, Callable[[int], list[Entry]]] = {"relocation": _relocation}


def main() -> int:
    options = _parser().parse_args()
    entries = [entry for name in options.names for entry in BENCHES[name](options.rounds)]
    if options.json:
        Path(options.json).write_text(json.dumps([e.json() for e in entries], indent=2) + "\n")
    table = Table("name", "value", "baseline", "ratio", "against")
    for e in entries:
        ours, theirs = f"{e.value:g} {e.unit}", f"{e.baseline_value:g} {e.unit}"
        table.add_row(e.name, ours, theirs, f"{e.ratio:.2f}", e.baseline)
    Console().print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(BENCHES), metavar="NAME")
    parser.add_argument("--json", metavar="FILE", help="write every entry with its conditions")
    parser.add_argument("--rounds", type=int, default=5, help="of subject and baseline, in turns")
    return parser


if __name__ == "__main__":
    sys.exit(main())
