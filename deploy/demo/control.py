"""The operator's side of the story: a gRPC client, and waiting for what should become true."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import grpc

from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    federation_pb2,
    federation_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
    types_pb2,
)
from common.rpc import blocking_channel
from common.tls import Bundle

T = TypeVar("T")

TOLD_WITHIN = 60.0  # seconds after a move's success; an observer and a source say what they saw


def until(what: str, look: Callable[[], T | None], timeout: float = 30.0) -> T:
    """Look again until it is there; the wait names what it waited for when it gives up."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not seen within {timeout:.0f} s: {what}")
        time.sleep(0.05)


@dataclass(frozen=True)
class Control:
    """Every service of a vCenter, as the operator whose certificate the channel has."""

    signaling: signaling_pb2_grpc.SignalingStub
    directory: directory_pb2_grpc.DirectoryStub
    operations: operations_pb2_grpc.OperationsStub
    inventory: inventory_pb2_grpc.InventoryStub
    federation: federation_pb2_grpc.FederationStub

    def lookup(self, *keys: types_pb2.VmKey) -> list[signaling_pb2.LookupResult]:
        request = signaling_pb2.LookupRequest(keys=keys)
        return list(self.directory.Lookup(request, timeout=10).results)

    def vm(self, vm_id: str) -> directory_pb2.GetVmResponse | None:
        request = directory_pb2.GetVmRequest(key=types_pb2.VmKey(vm_id=vm_id))
        try:
            return self.directory.GetVm(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def domains(self) -> federation_pb2.Domain:
        """This one, and within it those that it knows, and so on."""
        request = federation_pb2.ListDomainsRequest(tree=True)
        return self.federation.ListDomains(request, timeout=10).domain

    def operation(self, operation_id: str) -> operations_pb2.Operation:
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        return self.operations.Get(request, timeout=10)

    def alerts(self) -> list[types_pb2.Alert]:
        request = directory_pb2.ListAlertsRequest()
        return list(self.directory.ListAlerts(request, timeout=10).alerts)

    def servers(self) -> list[directory_pb2.ServerLoad]:
        request = directory_pb2.ListServersRequest()
        return list(self.directory.ListServers(request, timeout=10).servers)

    def declare_tenant(self, tenant: str) -> None:
        request = inventory_pb2.PutTenantRequest(tenant=types_pb2.Tenant(tenant_id=tenant))
        self.inventory.PutTenant(request, timeout=10)

    def declare_network(self, name: str, tenant: str, vni: int) -> None:
        network = types_pb2.VirtualNetwork(network_id=name, tenant=tenant, vnis=[vni])
        request = inventory_pb2.PutNetworkRequest(network=network)
        self.inventory.PutNetwork(request, timeout=10)

    def declare_group(self, tenant: str, name: str, profile: types_pb2.Profile) -> None:
        group = types_pb2.Group(tenant=tenant, name=name, profile=profile)
        request = inventory_pb2.PutGroupRequest(group=group)
        self.inventory.PutGroup(request, timeout=10)

    def move(
        self, vm_id: str, to: str, seen: Callable[[operations_pb2.Operation], None] | None = None
    ) -> operations_pb2.Operation:
        """Start a move and follow it to its end; `seen` gets every change."""
        request = signaling_pb2.RelocateRequest(vm_id=vm_id, destination=to)
        started = self.signaling.Relocate(request, timeout=10).operation
        last = started
        follow = operations_pb2.GetOperationRequest(operation_id=started.operation_id)
        for last in self.operations.Follow(follow, timeout=120):
            if seen is not None:
                seen(last)
        return last

    def told(
        self, done: operations_pb2.Operation, has: Callable[[operations_pb2.Receipt], object]
    ) -> operations_pb2.Operation:
        """A move that succeeded, once its receipt has what is told a moment later (see
        docs/receipts.md); as it is, if nobody says so."""

        def look() -> operations_pb2.Operation | None:
            now = self.operation(done.operation_id)
            return now if has(now.receipt) else None

        if done.phase == operations_pb2.PHASE_SUCCEEDED:
            with suppress(TimeoutError):
                return until("the receipt is whole", look, TOLD_WITHIN)
        return done


def stood_still(receipt: operations_pb2.Receipt) -> bool:
    """For how long: with that its copy's figures are the last ones."""
    return receipt.downtime_ms > 0


@contextmanager
def connected(target: str, operator: Bundle) -> Iterator[Control]:
    """A synchronous client: the story is told in order."""
    with blocking_channel(target, operator) as channel:
        yield Control(
            signaling_pb2_grpc.SignalingStub(channel),
            directory_pb2_grpc.DirectoryStub(channel),
            operations_pb2_grpc.OperationsStub(channel),
            inventory_pb2_grpc.InventoryStub(channel),
            federation_pb2_grpc.FederationStub(channel),
        )
