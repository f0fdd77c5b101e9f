"""Where each kind of record lives in the store: `kind/id`."""

from __future__ import annotations

from typing import TypeAlias

from common.model.dispute import Dispute
from common.model.operation import Operation
from common.model.server import Alert, Group, Server, Tenant, VirtualNetwork
from common.model.telling import Telling
from common.model.trust import Certificate, Invitation
from common.model.twin import Twin
from common.model.vm import Tombstone, VmRecord

Ledgered: TypeAlias = (
    VmRecord
    | Tombstone
    | Server
    | Tenant
    | VirtualNetwork
    | Group
    | Operation
    | Alert
    | Certificate
    | Invitation
    | Dispute
    | Telling
    | Twin
)

VM = "vm/"


def vm(vm_id: str) -> str:
    return VM + vm_id


def gone(vm_id: str) -> str:
    return f"gone/{vm_id}"


def server(server_id: str) -> str:
    return f"server/{server_id}"


def tenant(tenant_id: str) -> str:
    return f"tenant/{tenant_id}"


def network(network_id: str) -> str:
    return f"network/{network_id}"


def group(tenant_id: str, name: str) -> str:
    return f"group/{tenant_id}/{name}"


def operation(operation_id: str) -> str:
    return f"op/{operation_id}"


def alert(alert_id: str) -> str:
    return f"alert/{alert_id}"


def certificate(serial: str) -> str:
    return f"cert/{serial}"


def invitation(invitation_id: str) -> str:
    return f"invite/{invitation_id}"


def dispute(identity: str) -> str:
    return f"dispute/{identity}"


def telling(domain: str) -> str:
    return f"telling/{domain}"


def twin(identity: str) -> str:
    return f"twin/{identity}"
