"""Faults of a real `vcenter run`: killed, on a full disk, and watched by strace (I2)."""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from common.errors import Reason, Refusal
from common.pb.vsignal.v1 import signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from common.status import refusal_from_call
from deploy.faults.crash_ledger import MIN_RATE, crash
from tests.support.calls import Client
from tests.support.process import ROOT, configure, put_tenant, serving, tenants

PRIVATE_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
NOBODY = "00000000-0000-4000-8000-00000000ffff"


async def test_kill_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    trial = await crash(10, tmp_path)
    assert statistics.median(trial.rates) >= MIN_RATE


def can_trace() -> bool:
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode == 0


async def test_the_fsync_comes_before_the_acknowledgement(tmp_path: Path) -> None:
    """Seen from outside: between a request's arrival and its reply the WAL was synchronized."""
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace here")
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,sendmsg,recvmsg,pwrite64"
    strace = ("strace", "-D", "-f", "-y", "-s", "4000", "-o", str(trace), "-e", calls)
    names = [f"acknowledged-{n}" for n in range(5)]
    async with serving(configure(tmp_path), *strace) as client:
        await put_tenant(
            client, "first"
        )  # the headers of the first reply fill more than strace shows
        for name in names:
            await put_tenant(client, name)
    async with asyncio.timeout(10):  # the tracer ends a moment after what it traces
        while "exited with" not in trace.read_text().splitlines()[-1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    lines = trace.read_text().splitlines()
    for name in names:
        asked, written, synced, answered = order_of_events(lines, name)
        assert asked < written < synced < answered, (name, asked, written, synced, answered)


async def test_a_failed_fsync_is_said_and_nothing_of_it_comes_back(tmp_path: Path) -> None:
    """The system's own answer to every tenth fdatasync of a thread is an error."""
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace here")
    failing = "inject=fdatasync:error=EIO:when=10+10"
    strace = ("strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", failing)
    acknowledged, refusals = [], []
    async with serving(configure(tmp_path), *strace) as client:
        for number in range(60):
            refusal = await refused(client, f"t{number:02}")
            if refusal is None:
                acknowledged.append(f"t{number:02}")
            else:
                refusals.append(refusal)
        assert {(r.reason, bool(r.retry_after)) for r in refusals} == {(Reason.STORE_FAILED, True)}
        assert len(acknowledged) > 30 and await tenants(client) == acknowledged
    async with serving(configure(tmp_path)) as client:
        assert await tenants(client) == acknowledged


def order_of_events(lines: list[str], name: str) -> tuple[int, int, int, int]:
    """Line numbers: the request comes, the WAL is written, it is synchronized, the reply goes."""

    def first(pattern: str, after: int) -> int:
        found = (n for n in range(after + 1, len(lines)) if re.search(pattern, lines[n]))
        line = next(found, None)
        assert line is not None, f"{pattern} is not in the trace after line {after}"
        return line

    asked = first(rf"recvmsg.*{name}", -1)
    answered = first(rf"sendmsg.*{name}", asked)
    written = first(r"pwrite64\(.*ledger\.db-wal", asked)
    synced = first(r"(fsync|fdatasync)\(.*ledger\.db-wal", written)
    if "unfinished" in lines[synced]:  # strace tells the end on a line of its own
        synced = first(rf"^{lines[synced].split()[0]} .*sync resumed.*= 0", synced)
    return asked, written, synced, answered


def mount_small(data: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(data)], check=True)


async def full_disk(folder: Path) -> None:
    """Runs in a mount namespace of its own, with the vCenter as its child."""
    data = folder / "data"
    data.mkdir()
    mount_small(data)
    async with serving(configure(folder)) as client:
        await put_tenant(client, "first")
        (data / "ballast").write_bytes(b"x" * (shutil.disk_usage(data).free - 65_536))
        acknowledged, refusal = await fill(client)
        assert refusal.reason is Reason.STORE_FAILED and refusal.retry_after, refusal
        assert "full" in refusal.message
        key = types.VmKey(vm_id=NOBODY)
        answer = await client.directory.Lookup(signaling_pb2.LookupRequest(keys=[key]))
        assert not answer.results[0].found
        assert await tenants(client) == sorted(["first", *acknowledged])
        (data / "ballast").unlink()
        await put_tenant(client, "after")
        assert await tenants(client) == sorted(["after", "first", *acknowledged])
    async with serving(configure(folder)) as client:
        assert await tenants(client) == sorted(["after", "first", *acknowledged])


async def fill(client: Client) -> tuple[list[str], Refusal]:
    """Until three in a row were refused: after the first the store empties its log, which may make
    room for a few more."""
    acknowledged, in_a_row = [], 0
    for number in range(5000):
        name = f"t{number:04}-" + "x" * 50
        refusal = await refused(client, name)
        if refusal is None:
            acknowledged.append(name)
            in_a_row = 0
        elif (in_a_row := in_a_row + 1) == 3:
            return acknowledged, refusal
    raise AssertionError("the disk never became full")


async def refused(client: Client, name: str) -> Refusal | None:
    try:
        await put_tenant(client, name)
    except grpc.aio.AioRpcError as error:
        refusal = refusal_from_call(error)
        assert refusal is not None, error
        return refusal
    return None


def can_mount() -> bool:
    trial = [*PRIVATE_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"]
    found = shutil.which("unshare")
    return bool(found) and subprocess.run(trial, capture_output=True, check=False).returncode == 0


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("needs unshare and the right to mount a tmpfs in a private namespace")
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runpy; "
    run = f"runpy.run_path({__file__!r}, run_name='__main__')"
    command = [*PRIVATE_MOUNTS, sys.executable, "-c", start + run, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    asyncio.run(full_disk(Path(sys.argv[1])))
