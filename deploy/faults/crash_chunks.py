"""Writers whose commands share revisions: VMs by SyncGroup, new ones in every chunk.

What a chunk's answer acknowledged is there after a kill, all of it, at the revision that it was
given. Of the chunk that was under way there are whole batches or nothing (`writer.BUNDLE`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc.aio

from common import rpc
from common.codec.server import to_server
from common.model.server import Server
from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
    types_pb2,
)
from vcenter.ledger.writer import BUNDLE

CHUNK = 2 * BUNDLE
HOST = "crash-host"
TENANT = "chunks"
_ME = rpc.identity(f"vserver/{HOST}")
_OPERATOR = rpc.identity("operator/crash")


@dataclass
class Chunks:
    """One stream's counting, in a group of its own."""

    stream: int
    acknowledged: set[str] = field(default_factory=set)  # VMs that are in the ledger for certain
    under_way: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def group(self) -> str:
        return f"s{self.stream}"

    async def register(self, link: grpc.aio.Channel) -> None:
        """Until the vCenter is gone."""
        call: Any = signaling_pb2_grpc.SignalingStub(link).SyncGroup(metadata=_ME, timeout=20)
        begin = signaling_pb2.SyncGroupRequest.Begin(tenant=TENANT, group=self.group)
        try:
            await call.write(signaling_pb2.SyncGroupRequest(begin=begin))
            while True:
                members = [_member(self.stream, next(self._numbers)) for _ in range(CHUNK)]
                self.under_way = [member.vm.vm_id for member in members]
                chunk = signaling_pb2.SyncGroupRequest.Chunk(members=members)
                await call.write(signaling_pb2.SyncGroupRequest(chunk=chunk))
                response = await call.read()
                if response is grpc.aio.EOF:
                    return
                if refused := [r for r in response.results if r.reason]:
                    raise RuntimeError(f"refused: {refused[0]}")
                self.acknowledged.update(self.under_way)
                self.under_way = []
        except (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
            return  # as grpc.aio says of a call that has ended under a write

    async def missing(self, link: grpc.aio.Channel) -> str:
        """What is wrong after a kill; "" if nothing is. What is there counts from now on."""
        found = await _revisions(link, self.group)
        if lost := sorted(self.acknowledged - found.keys()):
            return f"{self.group}: {len(lost)} acknowledged VMs are not there, {lost[0]} first"
        if more := sorted(found.keys() - self.acknowledged - set(self.under_way)):
            return f"{self.group}: nobody registered {more[0]}"
        kept = Counter(found[vm_id] for vm_id in self.under_way if vm_id in found)
        if torn := [together for together in kept.values() if together != BUNDLE]:
            return f"{self.group}: of batches of {BUNDLE} VMs {torn} are there"
        self.acknowledged, self.under_way = set(found), []
        return ""


async def declare(link: grpc.aio.Channel) -> None:
    """Tenant and host, before anything is registered."""
    tenant = inventory_pb2.PutTenantRequest(tenant=types_pb2.Tenant(tenant_id=TENANT))
    await inventory_pb2_grpc.InventoryStub(link).PutTenant(tenant, metadata=_OPERATOR)
    call: Any = session_pb2_grpc.SessionStub(link).Attach(metadata=_ME)
    hello = session_pb2.Hello(server=to_server(Server(HOST)))
    await call.write(session_pb2.AgentMessage(hello=hello))
    await call.read()
    call.cancel()


async def _revisions(link: grpc.aio.Channel, group: str) -> dict[str, int]:
    """At which each VM of the group was written."""
    stub = directory_pb2_grpc.DirectoryStub(link)
    found: dict[str, int] = {}
    asked = directory_pb2.ListVmsRequest(tenant=TENANT, group=group, page_size=1000)
    while True:
        page = await stub.ListVms(asked, metadata=_OPERATOR)
        found |= {record.vm.vm_id: record.revision for record in page.records}
        asked.page_token = page.next_page_token
        if not asked.page_token:
            return found


def _member(stream: int, number: int) -> signaling_pb2.RegisterRequest:
    mac = f"02:{stream:02x}:" + number.to_bytes(4, "big").hex(":")
    nic = types_pb2.Interface(mac=mac)
    vm_id = f"{stream:08x}-0000-4000-8000-{number:012x}"
    vm = types_pb2.Vm(vm_id=vm_id, name=f"s{stream}-{number}", interfaces=[nic])
    return signaling_pb2.RegisterRequest(vm=vm, state=types_pb2.VM_STATE_RUNNING)
