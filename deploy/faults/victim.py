"""A vCenter of its own to be attacked: `vcenter run`, mutual TLS, a ledger in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import rpc
from deploy.bench.daemon import Process, free_port, running
from deploy.domain import Domain
from deploy.faults.attacks import Target


@dataclass(frozen=True, slots=True)
class Victim:
    server: Process
    domain: Domain

    @property
    def target(self) -> Target:
        host, _, port = self.server.target.rpartition(":")
        return Target(host, int(port), self.domain)


@contextmanager
def victim(folder: Path) -> Iterator[Victim]:
    address, domain = f"127.0.0.1:{free_port()}", Domain(folder / "domain")
    domain.make(address)
    config = folder / "vcenter.toml"
    config.write_text(
        f'domain = "{domain.name}"\nlisten = ["{address}"]\nstore = "memory"\n'
        f'drain_seconds = 0.5\n{domain.table("vcenter/victim")}\n[log]\nlevel = "warning"\n'
    )
    operator = domain.operator
    with running(config, address, lambda at: rpc.blocking_channel(at, operator)) as server:
        yield Victim(server, domain)
