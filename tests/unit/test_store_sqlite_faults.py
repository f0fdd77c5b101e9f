"""The SQLite store under real faults: kill -9, a full disk, a disk that turns read-only.

This file is also the program that those tests run in a process of its own.
"""

import asyncio
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vcenter.store.port import Batch, Put, StoreUnusable, WriteFailed
from vcenter.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
PRIVATE_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]


def program(*arguments: str, prefix: tuple[str, ...] = ()) -> list[str]:
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runpy; "
    run = f"runpy.run_path({__file__!r}, run_name='__main__')"
    return [*prefix, sys.executable, "-c", start + run, *arguments]


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    trial = [*PRIVATE_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def pair(number: int) -> Batch:
    """Two keys that must always be equal."""
    value = b"%d" % number
    return Batch((Put("left", value), Put("right", value), Put(f"k{number}", value)), {})


async def acknowledge_forever(path: str) -> None:
    """Append, then say so; until killed."""
    store = SqliteStore(path)
    await store.open()
    number = await store.revision()
    while True:
        number += 1
        await store.append([pair(number)], number)
        print(number, flush=True)


def acknowledged_until_killed(path: Path, count: int) -> int:
    with subprocess.Popen(program("forever", str(path)), stdout=subprocess.PIPE) as child:
        assert child.stdout
        for _ in range(count):
            assert child.stdout.readline()
        child.kill()
        rest = [line for line in child.stdout.read().split(b"\n") if line]
    return len(rest) + count


async def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, total, chance = tmp_path / "ledger.db", 0, random.Random(5)
    for _ in range(20):
        total += acknowledged_until_killed(path, chance.randint(1, 60))
        store = SqliteStore(path)
        await store.open()
        kept = await store.revision()
        assert total <= kept <= total + 1  # one more may be durable but not yet acknowledged
        records = {record.key: record.value async for page in store.snapshot() for record in page}
        assert records["left"] == records["right"] == b"%d" % kept
        assert len(records) == kept + 2
        assert [entry.revision async for entry in store.read(0)] == list(range(1, kept + 1))
        await store.close()
        total = kept


async def fill(store: SqliteStore) -> int:
    """Append until the disk is full. Returns the last revision that was acknowledged."""
    acknowledged = await store.revision()
    for number in range(100_000):
        try:
            puts = (Put("all", b"%d" % number), Put(f"big{number}", b"x" * 20_000))
            (acknowledged,) = await store.append([Batch(puts, {})], 1)  # type: ignore[assignment]
        except WriteFailed as error:
            assert "full" in str(error)
            return acknowledged
    raise AssertionError("the disk never became full")


async def check(store: SqliteStore, revision: int) -> None:
    """Exactly what was acknowledged is visible."""
    assert await store.revision() == revision
    assert [entry.revision async for entry in store.read(0)] == list(range(1, revision + 1))
    assert (
        max([record.revision async for page in store.snapshot() for record in page], default=0)
        == revision
    )


async def full_disk(folder: str) -> None:
    mount("-t", "tmpfs", "-o", "size=2m", "none", folder)
    ballast = weigh_down(folder, 1_000_000)
    store = SqliteStore(Path(folder, "ledger.db"))
    await store.open()
    full_at = await fill(store)
    await check(store, full_at)
    lighten(ballast)
    assert await store.append([pair(1)], 2) == [full_at + 1]
    await check(store, full_at + 1)
    await store.close()
    await store.open()
    await check(store, full_at + 1)
    await store.close()


async def no_room_to_start(folder: str) -> None:
    mount("-t", "tmpfs", "-o", "size=64k", "none", folder)
    weigh_down(folder, 48_000)
    store = SqliteStore(Path(folder, "ledger.db"))
    with pytest.raises(StoreUnusable, match="space"):
        await store.open()
    assert files(folder).keys() == {"ballast"}


async def read_only_disk(folder: str) -> None:
    """Between two runs: the system refuses to remount a disk while a file is open for writing."""
    mount("-t", "tmpfs", "-o", "size=2m", "none", folder)
    store = SqliteStore(Path(folder, "ledger.db"))
    await store.open()
    await store.append([pair(1)], 1)
    await store.close()
    mount("-o", "remount,ro", folder)
    before = files(folder)
    with pytest.raises(StoreUnusable, match="Read-only file system"):
        await store.open()
    assert files(folder) == before
    mount("-o", "remount,rw", folder)
    await store.open()
    await check(store, 1)
    await store.close()


async def write_errors(path: str) -> None:
    """The system refuses to let any file grow: an error that is not "disk full"."""
    store = SqliteStore(path)
    await store.open()
    await store.append([pair(1)], 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit_files(size(f"{path}-wal"))
    for _ in range(3):
        with pytest.raises(WriteFailed):
            await store.append([pair(2), pair(3)], 2)
        await check(store, 1)
    limit_files(resource.RLIM_INFINITY)
    assert await store.append([pair(2), pair(3)], 2) == [2, 3]
    await check(store, 3)
    await store.close()


def weigh_down(folder: str, size: int) -> Path:
    ballast = Path(folder, "ballast")
    ballast.write_bytes(b"x" * size)
    return ballast


def lighten(ballast: Path) -> None:
    ballast.unlink()


def files(folder: str) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in Path(folder).iterdir()}


def size(path: str) -> int:
    return Path(path).stat().st_size


def limit_files(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.mark.parametrize("scenario", ["full_disk", "no_room_to_start", "read_only_disk"])
def test_disk_faults(scenario: str, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("needs unshare and the right to mount a tmpfs in a private namespace")
    command = program(scenario, str(tmp_path), prefix=tuple(PRIVATE_MOUNTS))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_write_errors(tmp_path: Path) -> None:
    command = program("write_errors", str(tmp_path / "ledger.db"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_failure_halfway_is_undone(tmp_path: Path) -> None:
    """SQLite itself undoes a transaction that meets a full disk, but not one that is refused a
    value after some rows are in."""
    store = SqliteStore(tmp_path / "ledger.db")
    await store.open()
    bad = Batch((Put("b", object()),), {})  # type: ignore[arg-type]
    with pytest.raises(WriteFailed):
        await store.append([pair(1), bad], 1)
    assert await store.append([pair(1)], 1) == [1]
    with pytest.raises(OverflowError):
        await store.append([pair(2)], 1 << 70)
    await check(store, 1)
    assert await store.append([pair(2)], 1) == [2]
    await check(store, 2)
    await store.close()


@pytest.mark.parametrize("round_", range(15))
async def test_even_when_every_task_is_cancelled_a_group_is_whole(
    round_: int, tmp_path: Path
) -> None:
    """As at a shutdown; the store's own task is hit, wherever it is."""
    store = SqliteStore(tmp_path / "ledger.db")
    await store.open()
    asyncio.create_task(store.append([pair(i) for i in range(2000)], 1))  # noqa: RUF006
    await asyncio.sleep(0.001 * round_)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    (revision,) = await store.append([pair(0)], 2)
    assert revision in (1, 2001)
    await check(store, revision)
    await store.close()


if __name__ == "__main__":
    scenarios = {
        "forever": acknowledge_forever,
        "full_disk": full_disk,
        "no_room_to_start": no_room_to_start,
        "read_only_disk": read_only_disk,
        "write_errors": write_errors,
    }
    asyncio.run(scenarios[sys.argv[1]](sys.argv[2]))
