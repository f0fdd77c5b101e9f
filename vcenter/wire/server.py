"""The gRPC server: every service, health per service, reflection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer as AsyncHealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    federation_pb2,
    federation_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    session_pb2,
    signaling_pb2,
    signaling_pb2_grpc,
)
from common.tls import Keeper, server_credentials
from vcenter.wire.context import Parts
from vcenter.wire.directory import DirectoryService
from vcenter.wire.enrolment import EnrolmentService, JoiningService
from vcenter.wire.federation import FederationService
from vcenter.wire.inventory import InventoryService
from vcenter.wire.lookup import Lookup, LookupStream
from vcenter.wire.methods import Methods
from vcenter.wire.operations import OperationsService
from vcenter.wire.session import SessionService
from vcenter.wire.signaling import SignalingService

_CONTRACT = (
    signaling_pb2,
    session_pb2,
    directory_pb2,
    operations_pb2,
    inventory_pb2,
    enrolment_pb2,
    federation_pb2,
)
SERVICES = tuple(
    service.full_name
    for module in _CONTRACT
    for service in module.DESCRIPTOR.services_by_name.values()
    if service.name != "Joining"  # which is elsewhere: `JoinServer`
)


class CannotListen(Exception):
    """An address is taken, or is not this machine's."""


def listen_on(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> int:
    """The port that it became: 0 stands for any. Without credentials: in plain text."""
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        text = f"cannot listen on {address}: is something else there already? ({error})"
        raise CannotListen(text) from error


class JoinServer:
    """The one listener that asks for no certificate; there is nothing on it but `Joining`."""

    def __init__(self, server: grpc.aio.Server, parts: Parts, address: str, keeper: Keeper) -> None:
        self._server = server
        enrolment_pb2_grpc.add_JoiningServicer_to_server(JoiningService(parts), server)
        self.port = listen_on(server, address, server_credentials(keeper, clients=False))

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


class WireServer:
    """Start, drain, stop. Streams end by themselves when their sessions are closed.

    `listen` speaks TLS with the `keeper`'s certificate; `plain` are local addresses."""

    def __init__(
        self,
        server: grpc.aio.Server,
        parts: Parts,
        listen: Sequence[str],
        plain: Sequence[str] = (),
        keeper: Keeper | None = None,
    ) -> None:
        self._server = server
        self._parts = parts
        self._health = AsyncHealthServicer()
        self._add_services()
        self.ports = [self._listen(address, keeper) for address in listen]
        self.ports += [self._listen(address, None) for address in plain]

    def _listen(self, address: str, keeper: Keeper | None) -> int:
        return listen_on(self._server, address, server_credentials(keeper) if keeper else None)

    def _add_services(self) -> None:
        methods, parts = Methods(), self._parts
        to: Any = methods  # the generated code wants no more of a server than it is
        signaling = SignalingService(parts)
        signaling_pb2_grpc.add_SignalingServicer_to_server(signaling, to)
        SessionService(parts, signaling).add_to(methods)
        directory_pb2_grpc.add_DirectoryServicer_to_server(DirectoryService(parts), to)
        operations_pb2_grpc.add_OperationsServicer_to_server(OperationsService(parts), to)
        inventory_pb2_grpc.add_InventoryServicer_to_server(InventoryService(parts), to)
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(EnrolmentService(parts), to)
        federation_pb2_grpc.add_FederationServicer_to_server(FederationService(parts), to)
        for service in ("Signaling", "Directory"):  # last, so that it replaces the method
            Lookup(parts, service).add_to(methods)
        LookupStream(parts).add_to(methods)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, to)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names), to)
        methods.serve(self._server)

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
