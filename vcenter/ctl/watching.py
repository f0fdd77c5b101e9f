"""Following the ledger: `events`, and the `watch` of each noun."""

from __future__ import annotations

from collections.abc import Collection

import click
import grpc

from common.pb.vsignal.v1 import directory_pb2, types_pb2
from vcenter.ctl.app import App
from vcenter.ctl.failure import status_of
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.movement import movement
from vcenter.ctl.output import streamed
from vcenter.ctl.places import closed_because
from vcenter.ctl.words import listed, word

ALL = frozenset({"vm", "vm_gone", "server", "operation", "alert"})


def run(
    app: App, request: directory_pb2.WatchRequest, changes: Collection[str], snapshot: bool
) -> None:
    """Prints events until the stream ends, and begins again where the vCenter asks for it."""
    last = request.from_revision
    try:
        while True:
            for event in app.client.stream(app.client.directory.Watch, request, app.timeout):
                kind = event.WhichOneof("change")
                last = max(last, event.revision - (kind != "bookmark"))  # it may have more changes
                if kind == "resync":
                    app.say(f"Changes were missed; beginning again: {event.resync}")
                    request.from_revision = 0
                elif kind in changes and (snapshot or not event.snapshot):
                    streamed(app, event, line(event), name(event))
            if request.from_revision:
                request.from_revision = last
            app.say("The vCenter ended the stream; watching again.")
    except KeyboardInterrupt:
        return
    except grpc.RpcError as error:
        if app.timeout and status_of(error) == "DEADLINE_EXCEEDED":
            return  # as long as was asked for
        if last:
            app.say(f"All up to {last} was told; `vctl events --from {last}` goes on there.")
        raise


def name(event: directory_pb2.WatchEvent) -> str:
    """The id of what changed."""
    match event.WhichOneof("change"):
        case "vm":
            return event.vm.vm.vm_id
        case "vm_gone":
            return event.vm_gone
        case "server":
            return event.server.server_id
        case "operation":
            return event.operation.operation_id
        case "alert":
            return event.alert.alert_id
    return str(event.revision)


def line(event: directory_pb2.WatchEvent) -> str:
    """One line for a person."""
    mark = "=" if event.snapshot else " "
    return f"{event.revision:>9}{mark} {_text(event)}"


def _text(event: directory_pb2.WatchEvent) -> str:
    match event.WhichOneof("change"):
        case "vm":
            return _vm(event.vm)
        case "vm_gone":
            return f"vm      {event.vm_gone}  gone"
        case "server":
            host = event.server
            return f"server  {host.server_id}  {word(host, 'liveness')}"
        case "operation":
            return f"op      {event.operation.operation_id}  {movement(event.operation)}"
        case "alert":
            return alert_text(event.alert)
    return ""


def _vm(record: types_pb2.VmRecord) -> str:
    where = f"{record.location.server_id} {word(record.location, 'state')}"
    parts = [f"vm      {record.vm.vm_id}", record.vm.name, where, f"epoch {record.location.epoch}"]
    closed = closed_because(record)
    closed = f"ports {closed}" if closed else ""
    return "  ".join(part for part in (*parts, closed) if part)


def alert_text(alert: types_pb2.Alert) -> str:
    """An alert on one line."""
    evidence = listed(f"{key}={value}" for key, value in sorted(alert.evidence.items()))
    text = f"alert   {word(alert, 'severity').upper()} {alert.reason}: {alert.message}"
    return text if not alert.evidence else f"{text} ({evidence})"


def scope(
    app: App, tenant: str | None, server_id: str | None, network: str | None, vm: str | None
) -> directory_pb2.WatchRequest:
    """The part of the ledger that the options choose; they exclude each other."""
    if sum(option is not None for option in (tenant, server_id, network, vm)) > 1:
        raise click.UsageError("a watch has one scope: a VM, or --tenant, --on, or --network")
    request = directory_pb2.WatchRequest()
    if tenant is not None:
        request.tenant = tenant
    if server_id is not None:
        request.server_id = server_id
    if network is not None:
        request.network = network
    if vm is not None:
        request.vm_id = find_vm_id(app.client, vm)
    return request
