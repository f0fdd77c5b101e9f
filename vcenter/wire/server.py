"""The gRPC server: every service, health per service, reflection."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer as AsyncHealthServicer
from grpc_reflection.v1alpha import reflection

from common import rpc
from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
)
from vcenter.wire.context import Parts
from vcenter.wire.directory import DirectoryService
from vcenter.wire.inventory import InventoryService
from vcenter.wire.lookup import Lookup
from vcenter.wire.operations import OperationsService
from vcenter.wire.session import SessionService
from vcenter.wire.signaling import SignalingService

SERVICES = tuple(
    service.full_name
    for module in (signaling_pb2, session_pb2, directory_pb2, operations_pb2, inventory_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)


class CannotListen(Exception):
    """An address is taken, or is not this machine's."""


class WireServer:
    """Start, drain, stop. Streams end by themselves when their sessions are closed."""

    def __init__(self, parts: Parts, listen: Sequence[str]) -> None:
        self._server: grpc.aio.Server = rpc.server()
        self._parts = parts
        self._health = AsyncHealthServicer()
        self._add_services()
        self.ports = [self._listen(address) for address in listen]

    def _listen(self, address: str) -> int:
        """The port that it became: 0 stands for any."""
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            text = f"cannot listen on {address}: is something else there already? ({error})"
            raise CannotListen(text) from error

    def _add_services(self) -> None:
        server, parts = self._server, self._parts
        signaling = SignalingService(parts)
        signaling_pb2_grpc.add_SignalingServicer_to_server(signaling, server)
        session_pb2_grpc.add_SessionServicer_to_server(SessionService(parts, signaling), server)
        directory_pb2_grpc.add_DirectoryServicer_to_server(DirectoryService(parts), server)
        operations_pb2_grpc.add_OperationsServicer_to_server(OperationsService(parts), server)
        inventory_pb2_grpc.add_InventoryServicer_to_server(InventoryService(parts), server)
        for service in ("Signaling", "Directory"):  # last, so that it replaces the method
            Lookup(parts, service).add_to(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    async def start(self) -> None:
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace: float) -> None:
        """Not serving, streams ended by us, then whatever is left is cut after `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        self._parts.sessions.close()
        self._parts.board.end()
        self._parts.ledger.feed.end()
        await self._server.stop(grace)
