"""The nftables table: closed by default, one pair of chains for each known port.

    prerouting   iifname vmap @from_vm      postrouting   oifname vmap @to_vm
                 iifname @closed drop                     oifname @closed drop
                 iifname "vnet*" drop                     oifname "vnet*" drop

A tap's name is matched as a string, so a tap is closed before it exists, and a port's policy waits
for it. A chain that somebody empties by hand falls through to the drops: the port closes. A port
is open if, and only if, both maps have it.

`@closed` is for taps whose names have none of the known prefixes; such a name, once known, stays
in the set, for nothing else would close it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.model.profile import Acl, Direction, Rate
from vserver.network.linux.acl import compile_acl
from vserver.network.linux.antispoof import genuine
from vserver.network.linux.spec import to_comments
from vserver.network.port import Port

NAME = "vsignal"
HOOKS = {"prerouting": -300, "postrouting": 300}  # before, and after, everybody else's
MAPS = {"from_vm": "from-", "to_vm": "to-"}
SPEC = "spec-"


@dataclass(frozen=True, slots=True)
class Table:
    """Builds nft commands. Unhooked, it is a scratch copy that no frame ever meets."""

    prefixes: tuple[str, ...]
    name: str = NAME
    hooked: bool = True

    def base(self) -> list[str]:
        """What closes every tap. Repeating it mends it, and touches no port's state."""
        lines = [f"add table bridge {self.name}", *self._add("set", "closed", "ifname")]
        for name in MAPS:
            lines += self._add("map", name, "ifname : verdict")
        for hook, priority in HOOKS.items():
            kind = f"type filter hook {hook} priority {priority}; policy accept;"
            lines += self._chain(hook, self._guards(hook), kind if self.hooked else "")
        return lines

    def put(self, port: Port, *, is_shut: bool = False) -> list[str]:
        """Everything of one port, from whatever it was to exactly this.

        `is_shut`: it is known to have no map entry. Deleting one makes the kernel wait until no
        CPU looks at it any more, which takes longer than all the rest.
        """
        device, chains = port.device, port_chains(port)
        lines = [line for name, rules in chains.items() for line in self._chain(name, rules)]
        lines += [] if is_shut else self.shut(device)
        if not device.startswith(self.prefixes):
            lines.append(self._element("add", "closed", device))
        return [*lines, *self.open(device)] if port.is_open else lines

    def open(self, device: str) -> list[str]:
        """Open a port whose chains exist."""
        return [self._element("add", name, _jump(name, device)) for name in MAPS]

    def shut(self, device: str) -> list[str]:
        """Close a port whose chains exist; adding first makes deleting safe to repeat."""
        elements = [(name, _jump(name, device)) for name in MAPS]
        return [self._element(verb, *e) for e in elements for verb in ("add", "delete")]

    def drop(self, device: str) -> list[str]:
        """Forget a port, known or not; its tap is closed from then on."""
        names = chain_names(device)
        made = [line for name in names for line in self._chain(name, [])]
        gone = [f"delete chain bridge {self.name} {name}" for name in names]
        return [*made, *self.shut(device), *gone]

    def close(self, device: str) -> str:
        """Close a tap for good whose name has no known prefix."""
        return self._element("add", "closed", device)

    def forget_element(self, name: str, device: str) -> str:
        """Delete by key, whatever the verdict that somebody put there."""
        return f'delete element bridge {self.name} {name} {{ "{device}" }}'

    def delete(self) -> list[str]:
        """Remove the table, there or not."""
        return [f"add table bridge {self.name}", f"delete table bridge {self.name}"]

    def _guards(self, hook: str) -> list[str]:
        key, verdicts = ("iifname", "from_vm") if hook == "prerouting" else ("oifname", "to_vm")
        names = [f'{key} "{prefix}*" drop' for prefix in self.prefixes]
        return [f"{key} vmap @{verdicts}", f"{key} @closed drop", *names]

    def _add(self, what: str, name: str, type_: str) -> list[str]:
        return [f"add {what} bridge {self.name} {name} {{ type {type_}; }}"]

    def _chain(self, name: str, rules: list[str], hook: str = "") -> list[str]:
        chain = f"bridge {self.name} {name}"
        head = [f"add chain {chain} {{ {hook} }}" if hook else f"add chain {chain}"]
        return [*head, f"flush chain {chain}", *(f"add rule {chain} {rule}" for rule in rules)]

    def _element(self, verb: str, name: str, element: str) -> str:
        quoted = element if element.startswith('"') else f'"{element}"'
        return f"{verb} element bridge {self.name} {name} {{ {quoted} }}"


def chain_names(device: str) -> list[str]:
    return [f"{start}{device}" for start in (*MAPS.values(), SPEC)]


def port_chains(port: Port) -> dict[str, list[str]]:
    """The rules of a port by chain."""
    profile, acl = port.profile, port.profile.acl or Acl()
    checks = genuine(port) if profile.spoofing_is_checked else []
    egress = [*checks, *_police(profile.egress_rate), *compile_acl(acl, Direction.EGRESS)]
    ingress = [*_police(profile.ingress_rate), *compile_acl(acl, Direction.INGRESS)]
    spec = [f'continue comment "{piece}"' for piece in to_comments(port)]
    return dict(zip(chain_names(port.device), (egress, ingress, spec), strict=True))


def _police(rate: Rate | None) -> Iterator[str]:
    """The kernel's bucket always holds a second's worth on top of the burst."""
    if rate is not None:
        speed = rate.bits_per_second // 8
        yield f"limit rate over {speed} bytes/second burst {rate.burst} bytes drop"


def _jump(name: str, device: str) -> str:
    return f'"{device}" : jump {MAPS[name]}{device}'
