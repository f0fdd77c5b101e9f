"""Somebody who programs a data plane from `Directory.Watch`, and must miss nothing (I4)."""

from __future__ import annotations

import asyncio

import grpc

from common import rpc
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import directory_pb2, directory_pb2_grpc
from deploy.simulation.center import Center
from deploy.simulation.journal import short
from deploy.simulation.world import World
from vcenter.core.keys import VM
from vcenter.core.keys import vm as key_of

IDENTITY = rpc.identity("operator/nve")  # who may watch everything


class Watcher:
    """Resumes from its last bookmark after every cut, for as long as the world lasts."""

    def __init__(self, world: World, center: Center) -> None:
        self._world = world
        self._laws = center.laws
        self.process = world.process("watcher")
        self._stub = directory_pb2_grpc.DirectoryStub(world.channel("watcher", center))
        self.bookmark = 0
        self.began = 0  # the revision of the snapshot that it goes on from
        self._last = 0
        self._seen: set[tuple[int, str]] = set()

    async def run(self) -> None:
        while True:
            try:
                await self._watch()
            except grpc.aio.AioRpcError as error:
                self._world.journal.say("watcher", f"cut off: {error.code().name}")
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            await asyncio.sleep(0.5)

    async def _watch(self) -> None:
        self._last = self.bookmark
        request = directory_pb2.WatchRequest(from_revision=self.bookmark)
        async for event in self._stub.Watch(request, metadata=IDENTITY):
            if event.resync:
                self._world.journal.say("watcher", f"must begin again: {event.resync}")
                self.bookmark = self.began = 0
                self._seen.clear()
                return
            self._take(event)

    def _take(self, event: directory_pb2.WatchEvent) -> None:
        if event.revision < self._last:
            text = f"revision {event.revision} after {self._last}"
            self._world.journal.violated("I4", text)
        self._last = event.revision
        if event.bookmark:
            self.bookmark = event.revision
            self.began = self.began or event.revision
        elif event.snapshot:
            self.began = event.revision
        elif event.HasField("vm"):
            self._seen.add((event.revision, event.vm.vm.vm_id))
            self._compare(event)
        elif event.vm_gone:
            self._seen.add((event.revision, event.vm_gone))

    def _compare(self, event: directory_pb2.WatchEvent) -> None:
        key = key_of(event.vm.vm.vm_id)
        wrote = self._laws.log.get((event.revision, key))
        where = wrote.location.server_id if isinstance(wrote, VmRecord) else ""
        if where != event.vm.location.server_id:
            text = f"{short(event.vm.vm.vm_id)} at {event.revision} was on {where or 'none'}"
            self._world.journal.violated("I4", f"{text}, not {event.vm.location.server_id}")

    def missed(self) -> list[str]:
        """Changes between its snapshot and its last bookmark that it was never told of."""
        if not self.bookmark:
            return ["the watcher was never served"]
        return [
            f"the watcher never heard of {short(key[len(VM) :])} at {revision}"
            for revision, key in self._laws.log
            if self.began < revision <= self.bookmark
            and (revision, key[len(VM) :]) not in self._seen
        ]
