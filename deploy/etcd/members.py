"""One etcd cluster on loopback: every member a process of ours, with its data in one folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc

from common.clock import SystemClock
from common.pb.etcd import rpc_pb2, rpc_pb2_grpc

READY_WITHIN_S = 20.0
CLOCK = SystemClock()


class NoEtcd(Exception):
    """There is no etcd on this machine; the text says how to get one."""


def program() -> str:
    found = shutil.which("etcd")
    if found is None:
        raise NoEtcd("etcd is not installed: apt-get install etcd-server, or run scripts/setup")
    return found


def tied(command: Sequence[str]) -> list[str]:
    """The command, to be killed by the kernel when we are gone before we could end it."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def free_ports(count: int) -> list[int]:
    """Different ones, of loopback; nobody has them now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Member:
    """`kill` is kill -9; `start` takes it up again from its data."""

    def __init__(self, name: str, folder: Path, client: int, peer: int) -> None:
        self.name = name
        self.folder = folder
        self.address = f"127.0.0.1:{client}"
        self.peer = f"http://127.0.0.1:{peer}"
        self.process: Process | None = None

    def command(self, cluster: str, token: str, more: Sequence[str] = ()) -> list[str]:
        client = f"http://{self.address}"
        return [
            program(),
            f"--name={self.name}",
            f"--data-dir={self.folder}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={self.peer}",
            f"--initial-advertise-peer-urls={self.peer}",
            f"--initial-cluster={cluster}",
            f"--initial-cluster-token={token}",
            "--logger=zap",
            "--log-level=error",
            *more,
        ]

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    async def status(self) -> rpc_pb2.StatusResponse:
        """Raises `grpc.aio.AioRpcError` when it does not serve."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: rpc_pb2_grpc.MaintenanceAsyncStub = rpc_pb2_grpc.MaintenanceStub(channel)
            return await stub.Status(rpc_pb2.StatusRequest(), timeout=1.0)


class Cluster:
    """`async with Cluster(folder, 3) as cluster: … cluster.address …`"""

    def __init__(
        self, folder: Path, size: int = 3, token: str = "vsignal", ports: Sequence[int] = ()
    ) -> None:
        self.folder = folder
        self.token = token
        taken = list(ports) or free_ports(2 * size)
        self.members = [
            Member(f"m{n}", folder / f"m{n}", taken[2 * n], taken[2 * n + 1]) for n in range(size)
        ]
        self.peers = ",".join(f"{m.name}={m.peer}" for m in self.members)

    @property
    def address(self) -> str:
        """For a vCenter's `store`."""
        return "etcd://" + ",".join(m.address for m in self.members)

    async def __aenter__(self) -> Cluster:
        try:
            await asyncio.gather(*(self.start(member) for member in self.members))
            await self.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, member: Member) -> None:
        member.folder.parent.mkdir(parents=True, exist_ok=True)
        output = (self.folder / f"{member.name}.log").open("ab")
        member.process = await asyncio.create_subprocess_exec(
            *tied(member.command(self.peers, self.token)),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, and we end them
        )
        output.close()

    async def ready(self) -> None:
        """Every running member knows a leader."""
        async with asyncio.timeout(READY_WITHIN_S):
            for member in self.members:
                while member.running and not await self._serves(member):
                    await CLOCK.sleep(0.05)
                if member.process is not None and member.process.returncode:
                    raise NoEtcd(f"{member.name} ended: {self._said(member)}")

    async def leader(self) -> Member:
        """The one that the running members agree on."""
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                for member in self.members:
                    with suppress(grpc.aio.AioRpcError):
                        status = await member.status()
                        if member.running and status.leader == status.header.member_id:
                            return member
                await CLOCK.sleep(0.05)

    async def stop(self) -> None:
        for member in self.members:
            if member.running:
                with suppress(ProcessLookupError):
                    member.go_on()
                await member.kill()

    async def _serves(self, member: Member) -> bool:
        try:
            return bool((await member.status()).leader)
        except grpc.aio.AioRpcError:
            return False

    def _said(self, member: Member) -> str:
        return (self.folder / f"{member.name}.log").read_text(errors="replace")[-500:]
