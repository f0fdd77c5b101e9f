"""Several vCenters over one ledger in a real etcd."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from common import rpc
from common.clock import SystemClock
from deploy.etcd.members import tied
from tests.support.lab import Lab
from vcenter.store.etcd import EtcdStore, parse_address

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def replicas(
    folder: Path, address: str, names: str = "ab", **settings: Any
) -> AsyncIterator[list[Lab]]:
    """Labs whose vCenters share what is at the address; tenants and networks are declared."""
    async with AsyncExitStack() as stack:
        labs = []
        for name in names:
            place = folder / name
            place.mkdir(parents=True)
            clock = SystemClock()
            store = EtcdStore(parse_address(address), clock, name)
            lab = Lab(place, store, clock, **{"lease_seconds": 2.0} | settings)
            await lab.start()
            stack.push_async_callback(lab.stop)
            labs.append(lab)
        for lab in labs:
            await lab.declare()
        yield labs


@asynccontextmanager
async def replica_process(
    folder: Path, name: str, address: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A vCenter in a process of its own, at `FOLDER/NAME.sock`, once it serves."""
    config = folder / f"{name}.toml"
    config.write_text(f'listen_plaintext = ["unix:{folder}/{name}.sock"]\nstore = "{address}"\n')
    run = "from vcenter.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        *tied((sys.executable, "-c", run, "run", "--config", str(config))), cwd=ROOT, stdout=DEVNULL
    )
    try:
        async with rpc.channel(f"unix:{folder}/{name}.sock") as channel, asyncio.timeout(30):
            await channel.channel_ready()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
