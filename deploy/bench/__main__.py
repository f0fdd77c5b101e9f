"""`./scripts/bench NAME… [--json FILE]`"""

import argparse
import json
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.bench.entry import Entry

MILLION = 1_000_000


@dataclass(frozen=True)
class Bench:
    """`run` is in `module`, and takes the number of VMs and of rounds."""

    module: str
    run: str
    vms: int = MILLION


BENCHES = {
    "relocation": Bench("relocation", "run", 2),
    "relocation-qemu": Bench("relocation_qemu", "run", 2),
    "drain": Bench("drain", "run", 8),
    "replicate": Bench("replicate", "run", 2),
    "prediction": Bench("prediction", "run", 2),
    "lookup-unary": Bench("lookup", "unary"),
    "lookup-batch": Bench("lookup", "batch"),
    "lookup-etcd": Bench("etcd", "run"),
    "lookup-federated": Bench("federated", "lookups"),
    "federation-scale": Bench("federated", "scale"),
    "register-bulk": Bench("register", "bulk", 100_000),
    "register-unary": Bench("register", "unary", 25_000),
    "fanout": Bench("fanout", "run", 1_000),
    "attach": Bench("attach", "run", 10_000),
    "reattach": Bench("attach", "again", 10_000),
    "growth": Bench("growth", "run"),
    "memory": Bench("capacity", "memory"),
    "restart": Bench("capacity", "restart"),
}


def _run(name: str, vms: int | None, rounds: int) -> list[Entry]:
    """Modules are loaded when they are asked for: most machines lack what one of them needs."""
    bench = BENCHES[name]
    module = import_module(f"deploy.bench.{bench.module}")
    entries: list[Entry] = getattr(module, bench.run)(vms or bench.vms, rounds)
    return entries


def main() -> int:
    options = _parser().parse_args()
    entries = [entry for name in options.names for entry in _run(name, options.vms, options.rounds)]
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
    parser.add_argument("--vms", type=int, metavar="N", help="in the ledger, instead of a million")
    return parser


if __name__ == "__main__":
    sys.exit(main())
