"""Simulated domains: what a vCenter above them hears of theirs, over real gRPC, and nothing else.

`python -m deploy.bench.domains VMS NUMBER:PORT…`: domain NUMBER, of so many VMs, on that port.
After SIGUSR1 their VMs change, one after the other, as fast as whoever follows reads.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from common.codec.server import to_server
from common.pb.vsignal.v1 import directory_pb2, federation_pb2, types_pb2
from common.rpc import SERVER_OPTIONS
from deploy.bench.population import Guest, server, server_id

SHARED = 1_000  # VMs on one vServer, and on one network
BOOKMARK_EVERY = 100  # changes


def name(number: int) -> str:
    return f"dc-{number:02}"


class Domain:
    """`number` tells its VMs' identities from all others'."""

    def __init__(self, number: int, vms: int, changing: asyncio.Event) -> None:
        self._number = number
        self._vms = vms
        self._changing = changing
        self._hosts = max(1, vms // SHARED)
        self._revision = vms

    async def list_domains(self, request: bytes, context: Any) -> bytes:
        said = federation_pb2.Domain(name=name(self._number), relation=federation_pb2.RELATION_SELF)
        return federation_pb2.ListDomainsResponse(domain=said).SerializeToString()

    async def watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for host in range(self._hosts):
            event = directory_pb2.WatchEvent(revision=self._revision, snapshot=True)
            event.server.CopyFrom(to_server(server(host)))
            yield event.SerializeToString()
        event = directory_pb2.WatchEvent(revision=self._revision, snapshot=True)
        for n in range(self._vms):
            self._fill(event.vm, n, epoch=1)
            yield event.SerializeToString()
        yield self._bookmark()
        await self._changing.wait()
        async for change in self._changes():
            yield change

    async def _changes(self) -> AsyncIterator[bytes]:
        event, epoch = directory_pb2.WatchEvent(), 1
        while True:
            epoch += 1
            for n in range(self._vms):
                self._revision += 1
                event.revision = self._revision
                self._fill(event.vm, n, epoch)
                yield event.SerializeToString()
                if self._revision % BOOKMARK_EVERY == 0:
                    yield self._bookmark()

    def _fill(self, record: types_pb2.VmRecord, n: int, epoch: int) -> None:
        number = self._number * self._vms + n
        vm_id = f"{self._number:08x}-0000-4000-8000-{n:012x}"
        Guest(number, vm_id, number // SHARED, n % self._hosts).fill(record.vm)
        record.location.server_id = server_id((n + epoch) % self._hosts)
        record.location.state, record.location.epoch = types_pb2.VM_STATE_RUNNING, epoch

    def _bookmark(self) -> bytes:
        event = directory_pb2.WatchEvent(revision=self._revision, bookmark=True)
        return event.SerializeToString()


async def _serve(vms: int, places: list[str]) -> None:
    changing = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, changing.set)
    servers = []
    for place in places:
        number, _, port = place.partition(":")
        domain = Domain(int(number), vms, changing)
        listed: Any = grpc.unary_unary_rpc_method_handler(domain.list_domains)
        watched: Any = grpc.unary_stream_rpc_method_handler(domain.watch)
        made = grpc.aio.server(options=list(SERVER_OPTIONS))
        for service, method, handler in (
            ("Federation", "ListDomains", listed),
            ("Directory", "Watch", watched),
        ):
            generic = grpc.method_handlers_generic_handler(
                f"vsignal.v1.{service}", {method: handler}
            )
            made.add_generic_rpc_handlers((generic,))
        made.add_insecure_port(f"127.0.0.1:{port}")
        await made.start()
        servers.append(made)
    await asyncio.gather(*(made.wait_for_termination() for made in servers))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2:]))
