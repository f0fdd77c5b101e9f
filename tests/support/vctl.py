"""A small real gRPC server for vctl: it answers as it is told, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    federation_pb2_grpc,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2_grpc,
    types_pb2,
)

ID = "0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10"
OTHER = "1c9e7c62-93f0-4d2c-8a55-3f2b6c1d7e11"
OP = "7d1a0000-0000-4000-8000-00000000000a"
ROOT = Path(__file__).parents[2]


def refusal(code: int, message: str, reason: str, **more: Any) -> grpc.Status:
    """A refusal as the vCenter sends it."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(
            reason=reason, domain="vsignal", metadata=more.get("evidence", {})
        )
    ]
    if "fields" in more:
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = [violation(field=f, description=d) for f, d in more["fields"]]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if "retry" in more:
        delay = duration_pb2.Duration(seconds=more["retry"])
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in details]
    for holder, detail in zip(packed, details, strict=True):
        holder.Pack(detail)
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=packed))


Answer = Callable[[Any, grpc.ServicerContext], Any]


class Center:
    """Answers each method with what the test has put there, and remembers the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        self.address = ""

    def serve(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append((method, request))
        self.metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        answer = self.answers.get(method)
        if answer is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this test")
        return answer(request, context)

    def asked(self, method: str) -> list[Any]:
        return [request for name, request in self.requests if name == method]

    def refuse(self, method: str, status: grpc.Status) -> None:
        self.answers[method] = lambda _, context: context.abort_with_status(status)


def _servicer(base: type, center: Center) -> Any:
    methods = [name for name in vars(base) if name[0].isupper()]

    def handler(name: str) -> Any:
        return lambda _, request, context: center.serve(name, request, context)

    return type("Servicer", (base,), {name: handler(name) for name in methods})()


@pytest.fixture
def center(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Center]:
    center = Center()
    server = grpc.server(ThreadPoolExecutor(4))
    for module, service in (
        (directory_pb2_grpc, "Directory"),
        (federation_pb2_grpc, "Federation"),
        (inventory_pb2_grpc, "Inventory"),
        (operations_pb2_grpc, "Operations"),
        (signaling_pb2_grpc, "Signaling"),
    ):
        servicer = _servicer(getattr(module, f"{service}Servicer"), center)
        getattr(module, f"add_{service}Servicer_to_server")(servicer, server)
    center.address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    monkeypatch.setenv("VCTL_SERVER", center.address)
    monkeypatch.setenv("VCTL_IDENTITY", "operator/alice")
    yield center
    server.stop(None).wait()


def record(vm_id: str = ID, **fields: Any) -> types_pb2.VmRecord:
    machine = types_pb2.Vm(
        vm_id=vm_id,
        name=fields.get("name", "web-1"),
        tenant=fields.get("tenant", "acme"),
        interfaces=[types_pb2.Interface(mac="52:54:00:00:00:01", network="blue", vni=5001)],
    )
    place = types_pb2.Location(server_id="host-1", state=types_pb2.VM_STATE_RUNNING, epoch=4)
    return types_pb2.VmRecord(vm=machine, location=place, revision=17, profile_hash="ab" * 32)


def vms(*records: types_pb2.VmRecord) -> Answer:
    """Pages of one record each."""

    def answer(request: directory_pb2.ListVmsRequest, _: object) -> directory_pb2.ListVmsResponse:
        at = int(request.page_token or 0)
        following = str(at + 1) if at + 1 < len(records) else ""
        return directory_pb2.ListVmsResponse(
            records=records[at : at + 1], next_page_token=following
        )

    return answer


def operation(
    phase: operations_pb2.Phase.ValueType, done: bool = False, **fields: Any
) -> operations_pb2.Operation:
    return operations_pb2.Operation(
        operation_id=OP, kind="relocate", vm_id=ID, source="host-1", destination="host-2",
        phase=phase, done=done, epoch_before=4, **fields,
    )  # fmt: skip
