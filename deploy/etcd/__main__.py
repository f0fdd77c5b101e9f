"""`scripts/replicas`: three etcd members and two vCenters on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from contextlib import AsyncExitStack
from pathlib import Path

from common import rpc
from deploy.etcd.members import Cluster, NoEtcd, tied

VCENTER = "from vcenter.cli import main; main()"
READY_WITHIN_S = 30.0


async def serve(folder: Path, base: int, count: int) -> None:
    """Ports: `base` and on for vCenters, `base` + 10 and on for etcd."""
    stop = asyncio.Event()
    for sent in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sent, stop.set)
    cluster = Cluster(folder / "etcd", size=3, ports=range(base + 10, base + 16))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(cluster)
        for number in range(count):
            await _vcenter(stack, folder, f"127.0.0.1:{base + number}", cluster.address)
        _tell(base, count, cluster)
        await stop.wait()


async def _vcenter(stack: AsyncExitStack, folder: Path, listen: str, store: str) -> None:
    config = folder / f"vcenter-{listen.rpartition(':')[2]}.toml"
    config.write_text(f'listen_plaintext = ["{listen}"]\nstore = "{store}"\n')
    with config.with_suffix(".log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *tied((sys.executable, "-c", VCENTER, "run", "--config", str(config))),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    stack.push_async_callback(_end, process)
    async with rpc.channel(listen) as channel, asyncio.timeout(READY_WITHIN_S):
        await channel.channel_ready()


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        await process.wait()


def _tell(base: int, count: int, cluster: Cluster) -> None:
    vcenters = [f"127.0.0.1:{base + number}" for number in range(count)]
    print(f"etcd       {', '.join(m.address for m in cluster.members)}")
    print(f"vCenters   {', '.join(vcenters)}")
    print(f'agents     vcenter = ["{chr(34).join(("", ", ", "")).join(vcenters)}"]')
    print(f"try        vctl --as operator/me --server {vcenters[0]} server list")
    print("Ctrl-C ends all of it.", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="replicas", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the data here; default: a new one")
    parser.add_argument("--port", type=int, default=7400, help="the first vCenter's (7400)")
    parser.add_argument("--vcenters", type=int, default=2, choices=range(1, 10))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vs-replicas-") as fresh:
        folder = options.folder or Path(fresh)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            asyncio.run(serve(folder.absolute(), options.port, options.vcenters))
        except (NoEtcd, TimeoutError) as error:
            print(f"replicas: {error or 'a vCenter did not start'}; logs in {folder}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
