"""`vcenter run` in a process of its own, with a database, and what an operator asks of it there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from common import rpc
from common.pb.vsignal.v1 import inventory_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import Client

ROOT = Path(__file__).parents[2]
VCENTER = [sys.executable, "-c", "from vcenter.cli import main; main()"]
READY_WITHIN_S = 40.0


def configure(folder: Path) -> Path:
    """A configuration in the folder; the database is `data/ledger.db` there."""
    (folder / "data").mkdir(exist_ok=True)
    path = folder / "vcenter.toml"
    path.write_text(
        f'listen_plaintext = ["unix:{folder}/vcenter.sock"]\n'
        f'store = "sqlite:{folder}/data/ledger.db"\n'
        '[log]\nformat = "json"\n'
    )
    return path


@asynccontextmanager
async def serving(config: Path, *prefix: str) -> AsyncIterator[Client]:
    """An operator's client, once it serves. `prefix`: a program that runs it, strace say."""
    process = await asyncio.create_subprocess_exec(
        *prefix, *VCENTER, "run", "--config", str(config), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        async with rpc.channel(f"unix:{config.parent}/vcenter.sock") as channel:
            async with asyncio.timeout(READY_WITHIN_S):
                await channel.channel_ready()
            yield Client(channel, "operator/alice")
    finally:
        process.terminate()
        await process.wait()


async def put_tenant(client: Client, name: str) -> None:
    request = inventory_pb2.PutTenantRequest(tenant=types.Tenant(tenant_id=name))
    await client.inventory.PutTenant(request)


async def tenants(client: Client) -> list[str]:
    listed = await client.inventory.ListTenants(inventory_pb2.ListTenantsRequest())
    return sorted(t.tenant_id for t in listed.tenants)
