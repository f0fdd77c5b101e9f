"""`vcenter db`, beside a `vcenter run` in its own process and without one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from common.lifecycle import BAD_CONFIG, FAILED, OK
from common.model.revision import generation
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2
from tests.support.calls import Client
from tests.support.process import ROOT, VCENTER, configure, put_tenant, serving, tenants
from vcenter.store.sqlite import SqliteStore


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configure(tmp_path)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*VCENTER, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def db(config: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("db", *arguments, "--config", config)


def names(folder: Path) -> list[str]:
    """The audit log beside the database is no part of it."""
    return sorted(path.name for path in folder.iterdir() if ".audit." not in path.name)


async def test_check_and_backup_go_on_beside_a_serving_vcenter(
    config: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.db"
    async with serving(config) as client:
        await put_tenant(client, "one")
        writing = asyncio.create_task(write_for_ever(client))
        checked = await asyncio.to_thread(db, config, "check")
        assert checked.returncode == OK and "in use by a vCenter" in checked.stdout, checked
        done = await asyncio.to_thread(db, config, "backup", saved)
        assert done.returncode == OK and "it was checked" in done.stdout, done
        assert not writing.done()
        writing.cancel()
        again = await asyncio.to_thread(db, config, "backup", saved)
        assert again.returncode == FAILED and "never overwrites" in again.stderr
        for command in (("restore", saved), ("compact",)):
            refused = await asyncio.to_thread(db, config, *command)
            assert refused.returncode == FAILED and "in use by another vCenter" in refused.stderr
        assert "one" in await tenants(client)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert names(tmp_path) == ["data", "saved.db", "vcenter.toml"]
    store = SqliteStore(saved)
    await store.open()
    assert "tenant/one" in [record.key async for page in store.snapshot() for record in page]
    await store.close()


async def write_for_ever(client: Client) -> None:
    number = 0
    while True:
        number += 1
        await put_tenant(client, f"t{number % 7}")


async def test_a_restored_backup_keeps_the_old_file_and_begins_a_new_generation(
    config: Path, tmp_path: Path
) -> None:
    saved, data = tmp_path / "saved.db", tmp_path / "data"
    async with serving(config) as client:
        await put_tenant(client, "before")
        assert db(config, "backup", saved).returncode == OK
        await put_tenant(client, "after")
        listed = await client.inventory.ListTenants(inventory_pb2.ListTenantsRequest())
        assert len(listed.tenants) == 2
        lost = (await client.directory.ListAlerts(directory_pb2.ListAlertsRequest())).revision
    old = (data / "ledger.db").read_bytes()
    done = db(config, "restore", saved)
    assert done.returncode == OK and "is kept as" in done.stdout, done
    (kept,) = (name for name in names(data) if name != "ledger.db")
    assert (data / kept).read_bytes() == old
    async with serving(config) as client:
        assert await tenants(client) == ["before"]
        await put_tenant(client, "new")
        revision = (await client.directory.ListAlerts(directory_pb2.ListAlertsRequest())).revision
        assert generation(revision) == 1 and generation(lost) == 0
        request = directory_pb2.WatchRequest(from_revision=lost)
        async for event in client.directory.Watch(request):
            assert event.resync and event.revision == revision
    assert db(config, "check").returncode == db(config, "compact").returncode == OK
    assert db(config, "restore", saved).returncode == OK
    assert len(names(data)) == 3


async def test_an_interrupted_restore_is_no_empty_ledger(config: Path, tmp_path: Path) -> None:
    saved, data = tmp_path / "saved.db", tmp_path / "data"
    async with serving(config) as client:
        await put_tenant(client, "one")
        assert db(config, "backup", saved).returncode == OK
    (data / "ledger.db").rename(data / "ledger.db.restoring")
    refused = run("run", "--config", config)
    assert refused.returncode == FAILED
    assert "vcenter db restore" in refused.stdout + refused.stderr
    assert db(config, "restore", saved).returncode == OK
    async with serving(config) as client:
        assert await tenants(client) == ["one"]


@pytest.mark.parametrize("spoil", ["truncated", "flipped", "index"])
async def test_damage_is_found_and_a_backup_helps(config: Path, tmp_path: Path, spoil: str) -> None:
    saved, path = tmp_path / "saved.db", tmp_path / "data" / "ledger.db"
    async with serving(config) as client:
        for number in range(60):
            await put_tenant(client, f"t{number}")
    assert db(config, "backup", saved).returncode == OK
    if spoil == "truncated":
        os.truncate(path, path.stat().st_size - 4096)
    elif spoil == "flipped":
        content = bytearray(path.read_bytes())
        at = content.rindex(b"tenant/t30")
        content[at + 7] ^= 0x01
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("UPDATE current SET value = x'ff' WHERE key = 'tenant/t7'")
    checked = db(config, "check")
    assert checked.returncode == FAILED, checked
    assert "tenant/t7" in checked.stderr or "restore a backup" in checked.stderr
    assert db(config, "restore", path).returncode == FAILED
    assert db(config, "restore", saved).returncode == OK
    async with serving(config) as client:
        assert len(await tenants(client)) == 60


def test_what_cannot_be_done_is_said(config: Path, tmp_path: Path) -> None:
    missing = db(config, "check")
    assert missing.returncode == FAILED and "does not exist" in missing.stderr
    assert db(tmp_path / "none.toml", "check").returncode == BAD_CONFIG
    (tmp_path / "junk").write_text("no database")
    assert db(config, "restore", tmp_path / "junk").returncode == FAILED
    config.write_text(f'store = "memory"\nlisten_plaintext = ["unix:{tmp_path}/v.sock"]\n')
    refused = db(config, "backup", tmp_path / "b.db")
    assert refused.returncode == FAILED and "in memory" in refused.stderr
