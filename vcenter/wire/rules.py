"""Who may call what. Deny by default; a test fails for a method that has no line here."""

from __future__ import annotations

from common.errors import Reason, Refusal
from vcenter.wire.caller import Caller, Role

V, O, W = Role.VSERVER, Role.OPERATOR, Role.WATCHER  # noqa: E741 - a table reads best in columns

RULES: dict[str, frozenset[Role]] = {
    "Signaling/Register": frozenset({V}),
    "Signaling/Deregister": frozenset({V}),
    "Signaling/SyncGroup": frozenset({V, O}),
    "Signaling/Lookup": frozenset({V, O, W}),
    "Signaling/Relocate": frozenset({O}),
    "Signaling/Replicate": frozenset({V, O}),
    "Signaling/Report": frozenset({V}),
    "Session/Attach": frozenset({V}),
    "Directory/Lookup": frozenset({V, O, W}),
    "Directory/BatchLookup": frozenset({V, O, W}),
    "Directory/GetVm": frozenset({O, W}),
    "Directory/ListVms": frozenset({O, W}),
    "Directory/ListServers": frozenset({O, W}),
    "Directory/ListAlerts": frozenset({O}),
    "Directory/WhereWas": frozenset({O}),
    "Directory/VmHistory": frozenset({O}),
    "Directory/Watch": frozenset({O, W}),
    "Operations/Get": frozenset({O}),
    "Operations/List": frozenset({O}),
    "Operations/Wait": frozenset({O}),
    "Operations/Follow": frozenset({O}),
    "Operations/Cancel": frozenset({O}),
    "Inventory/PutTenant": frozenset({O}),
    "Inventory/DeleteTenant": frozenset({O}),
    "Inventory/ListTenants": frozenset({O}),
    "Inventory/PutNetwork": frozenset({O}),
    "Inventory/DeleteNetwork": frozenset({O}),
    "Inventory/ListNetworks": frozenset({O}),
    "Inventory/PutGroup": frozenset({O}),
    "Inventory/DeleteGroup": frozenset({O}),
    "Inventory/GetGroup": frozenset({O}),
    "Inventory/ListGroups": frozenset({O}),
    "Inventory/AssignVm": frozenset({O}),
    "Inventory/SetVmProfile": frozenset({O}),
}


def authorize(method: str, caller: Caller) -> None:
    """Raises `Refusal(FORBIDDEN)`. `method` is `Service/Method`, as on the wire."""
    if caller.role not in RULES.get(method, frozenset()):
        raise Refusal(Reason.FORBIDDEN, f"{caller} may not call {method}")


def own_server(caller: Caller, said: str) -> str:
    """The vServer that speaks: the certificate's. A body that names another is refused."""
    if said and said != caller.name:
        text = f"{caller} spoke for vServer {said!r}"
        raise Refusal(Reason.NOT_YOUR_SERVER, text)
    return caller.name
