"""Who may call what: one table, deny by default; a test fails for a method that has no line here.

`own`: only for itself (a vServer), or only what is its tenant's or network's (`sight` hides the
rest as if it did not exist). `all`: whatever there is. `-`: never. The operator's column names the
least of the three roles that may. Whoever may change something is in the audit log with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import Reason, Refusal
from common.model.caller import OPERATORS, Caller, Role

TABLE = """
                         vserver  domain   tenant  watcher  operator  changes
Signaling/Register       own      -        -       -        -         yes
Signaling/Deregister     own      -        -       -        -         yes
Signaling/SyncGroup      own      -        -       -        operate   yes
Signaling/Lookup         all      all      own     own      view      no
Signaling/LookupStream   all      all      own     own      view      no
Signaling/Relocate       -        -        own     -        operate   yes
Signaling/Replicate      own      -        own     -        operate   yes
Signaling/Report         own      -        -       -        -         yes
Session/Attach           own      -        -       -        -         yes
Directory/Lookup         all      all      own     own      view      no
Directory/BatchLookup    all      all      own     own      view      no
Directory/GetVm          -        all      own     own      view      no
Directory/ListVms        -        all      own     own      view      no
Directory/CountVms       -        all      own     own      view      no
Directory/ListServers    -        all      -       -        view      no
Directory/ListAlerts     -        -        -       -        view      no
Directory/WhereWas       -        all      own     -        view      no
Directory/VmHistory      -        -        own     -        view      no
Directory/Watch          -        all      own     own      view      no
Directory/ListAudit      -        -        -       -        view      no
Federation/ListDomains   -        all      -       -        view      no
Federation/Tell          -        -        -       -        admin     yes
Federation/Members       -        all      -       -        -         no
Federation/Twins         -        all      -       -        -         no
Federation/PlanArrivals  -        -        -       -        -         no
Federation/Carry         -        -        -       -        -         yes
Operations/Get           -        -        own     -        view      no
Operations/List          -        -        own     -        view      no
Operations/Wait          -        -        own     -        view      no
Operations/Follow        -        -        own     -        view      no
Operations/Cancel        -        -        own     -        operate   yes
Operations/Fence         -        -        -       -        operate   yes
Operations/Settle        -        -        -       -        operate   yes
Operations/Promote       -        -        -       -        operate   yes
Inventory/PutTenant      -        -        -       -        admin     yes
Inventory/DeleteTenant   -        -        -       -        admin     yes
Inventory/ListTenants    -        -        own     -        view      no
Inventory/PutNetwork     -        -        -       -        admin     yes
Inventory/DeleteNetwork  -        -        -       -        admin     yes
Inventory/ListNetworks   -        -        own     -        view      no
Inventory/PutGroup       -        -        -       -        admin     yes
Inventory/DeleteGroup    -        -        -       -        admin     yes
Inventory/GetGroup       -        -        own     -        view      no
Inventory/ListGroups     -        -        own     -        view      no
Inventory/AssignVm       -        -        -       -        operate   yes
Inventory/SetVmProfile   -        -        -       -        admin     yes
Inventory/CordonServer   -        -        -       -        operate   yes
Enrolment/Invite         -        -        -       -        admin     yes
Enrolment/Renew          own      own      own     own      view      yes
Enrolment/ListCertificates  -     -        -       -        view      no
Enrolment/Revoke         -        -        -       -        admin     yes
Inventory/ThawVm         -        -        -       -        operate   yes
"""


def _read(table: str) -> tuple[dict[str, frozenset[Role]], frozenset[str]]:
    head, *lines = (line.split() for line in table.strip().splitlines())
    allowed, changing = {}, set()
    for method, *cells in lines:
        said = dict(zip(head, cells, strict=True))
        roles = {Role(column) for column in head[:4] if said[column] != "-"}
        if said["operator"] != "-":
            roles.update(OPERATORS[OPERATORS.index(Role(said["operator"])) :])
        allowed[method] = frozenset(roles)
        if said["changes"] == "yes":
            changing.add(method)
    return allowed, frozenset(changing)


RULES, CHANGING = _read(TABLE)
# What vCenters ask of each other as the caller who asked them; nobody calls it for himself.
BETWEEN = {
    "Federation/PlanArrivals": frozenset({Role.TENANT, Role.OPERATE, Role.ADMIN}),
    "Federation/Carry": frozenset({Role.TENANT, Role.OPERATE, Role.ADMIN}),
}
_NOBODY: frozenset[Role] = frozenset()


def authorize(method: str, caller: Caller) -> None:
    """Raises `Refusal(FORBIDDEN)`. `method` is `Service/Method`, as on the wire. Whoever is vouched
    for by another domain gets no certificates of ours: they would outlast that word. Nor does it
    say what that domain may learn."""
    if caller.via and (method.startswith("Enrolment/") or method == "Federation/Tell"):
        raise Refusal(Reason.FORBIDDEN, f"{caller} may not call {method} from another domain")
    allowed = BETWEEN if caller.via and method in BETWEEN else RULES
    if caller.role not in allowed.get(method, _NOBODY):
        raise Refusal(Reason.FORBIDDEN, f"{caller} ({caller.role}) may not call {method}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One method's line of the table."""

    method: str  # `Service/Method`
    changes: bool
    allowed: frozenset[Role]

    def authorize(self, caller: Caller) -> None:
        """As the function does."""
        if caller.via or caller.role not in self.allowed:
            authorize(self.method, caller)


class RulesOf(dict[str, Rule]):
    """The rules of a method's name, by service; each is looked up once."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, service: str) -> Rule:
        method = f"{service}/{self._name}"
        rule = Rule(method, method in CHANGING, RULES.get(method, _NOBODY))
        self[service] = rule
        return rule


def own_server(caller: Caller, said: str) -> str:
    """The vServer that speaks: the certificate's. A body that names another is refused."""
    if said and said != caller.name:
        text = f"{caller} spoke for vServer {said!r}"
        raise Refusal(Reason.NOT_YOUR_SERVER, text)
    return caller.name
