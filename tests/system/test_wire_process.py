"""`vcenter run` as its own process: files that it must not touch, and stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from common import rpc
from common.lifecycle import BAD_CONFIG, FAILED, OK
from common.pb.vsignal.v1 import inventory_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import Client
from vcenter.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-c", "from vcenter.cli import main; main()", "run", "--config"]


def configured(folder: Path, more: str = "") -> Path:
    path = folder / "vcenter.toml"
    path.write_text(
        f'listen_plaintext = ["unix:{folder}/vcenter.sock"]\n'
        f'store = "sqlite:{folder}/ledger.db"\n{more}'
    )
    return path


def run(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, str(config)], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("ledger")}


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(os.urandom(9000)), "damaged"),
        (lambda path: os.truncate(path, path.stat().st_size - 100), "damaged"),
        (lambda path: sql(path, "PRAGMA user_version = 999"), "newer"),
    ],
    ids=["corrupt", "cut", "newer"],
)
async def test_a_file_that_it_cannot_use_is_left_alone(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    spoil(path)
    before = files(tmp_path)
    ended = run(configured(tmp_path))
    assert ended.returncode == FAILED
    assert says in ended.stdout + ended.stderr and str(path) in ended.stdout + ended.stderr
    assert files(tmp_path) == before


def test_a_configuration_with_an_unknown_key_starts_nothing(tmp_path: Path) -> None:
    ended = run(configured(tmp_path, "colour = 'blue'\n"))
    assert ended.returncode == BAD_CONFIG
    assert "colour" in ended.stderr
    assert files(tmp_path) == {}


async def test_sigterm_drains_and_what_was_acknowledged_is_there_again(tmp_path: Path) -> None:
    config = configured(tmp_path)
    tenant = inventory_pb2.PutTenantRequest(tenant=types.Tenant(tenant_id="blue"))
    for expected in (None, "blue"):
        process = await asyncio.create_subprocess_exec(*RUN, str(config), cwd=ROOT, stdout=DEVNULL)
        try:
            async with rpc.channel(f"unix:{tmp_path}/vcenter.sock") as channel:
                await channel.channel_ready()
                stub = Client(channel, "operator/alice").inventory
                listed = await stub.ListTenants(inventory_pb2.ListTenantsRequest())
                assert [t.tenant_id for t in listed.tenants] == ([expected] if expected else [])
                await stub.PutTenant(tenant)
            process.send_signal(signal.SIGTERM if expected else signal.SIGKILL)
            async with asyncio.timeout(20):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == (OK if expected else -signal.SIGKILL)
