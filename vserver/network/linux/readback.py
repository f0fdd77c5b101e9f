"""What nftables holds now, in a form that two listings can be compared in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import Refusal
from vserver.network.linux.command import Commands
from vserver.network.linux.generation import generation
from vserver.network.linux.spec import from_comments
from vserver.network.linux.table import HOOKS, MAPS, SPEC, chain_names
from vserver.network.port import Port


@dataclass(slots=True)
class Listing:
    """Chains as texts of their rules, without handles and counters; maps as key to verdict."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    hooks: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    elements: dict[str, dict[str, str]] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)

    def devices(self) -> set[str]:
        """Every device that has anything of a port here."""
        starts = (*MAPS.values(), SPEC)
        named = {n.removeprefix(s) for n in self.chains for s in starts if n.startswith(s)}
        return named.union(*(self.elements.get(name, {}) for name in MAPS))

    def port(self, device: str) -> Port | None:
        """The port as it was put in place, if it says so itself."""
        port = from_comments(self.comments.get(SPEC + device, []))
        if port is None or port.device != device:
            return None
        return replace(port, is_open=None not in self._verdicts(device))

    def _verdicts(self, device: str) -> list[str | None]:
        return [self.elements.get(name, {}).get(device) for name in MAPS]

    def has_base(self, copy: Listing) -> bool:
        """Whether every tap is closed by default, as in the scratch copy."""
        hooks = {hook: (hook, priority, "accept") for hook, priority in HOOKS.items()}
        same = all(self.chains.get(hook) == copy.chains.get(hook) for hook in HOOKS)
        return same and self.hooks == hooks

    def has_port(
        self, port: Port, chains: Mapping[str, list[str]], prefixes: tuple[str, ...]
    ) -> bool:
        """Whether exactly this port is in force."""
        if any(self.chains.get(name) != rules for name, rules in chains.items()):
            return False
        if not port.device.startswith(prefixes) and port.device not in self.elements.get(
            "closed", {}
        ):
            return False
        return self._verdicts(port.device) == [
            _jump(start + port.device) if port.is_open else None for start in MAPS.values()
        ]

    def port_chains(self, device: str) -> dict[str, list[str]]:
        return {name: self.chains.get(name, []) for name in chain_names(device)}

    def strange_elements(self) -> list[tuple[str, str]]:
        """Map entries that somebody else put there: (map, device)."""
        return [
            (name, device)
            for name, start in MAPS.items()
            for device, verdict in self.elements.get(name, {}).items()
            if verdict != _jump(start + device)
        ]


async def read(commands: Commands, table: str) -> Listing:
    """The table as it is; empty if there is none."""
    try:
        text = await commands.run(["nft", "-j", "list", "table", "bridge", table])
    except Refusal as refusal:
        if "No such file" in refusal.message:
            return Listing()
        raise
    return await asyncio.to_thread(_parse, text)


class Reader:
    """Reads one table, and again only if any rule on the host has changed since."""

    def __init__(self, commands: Commands, table: str) -> None:
        self._commands = commands
        self._table = table
        self._last: tuple[int, Listing] | None = None

    @property
    def count(self) -> int | None:
        """The kernel's count of transactions when the table was read last."""
        return self._last[0] if self._last is not None else None

    def knows_shut(self, device: str) -> bool:
        """Whether it is certain, without reading, that the device has no map entry."""
        if self._last is None or self._last[0] != generation(self._commands.netns):
            return False
        return not any(device in self._last[1].elements.get(name, {}) for name in MAPS)

    async def read(self) -> Listing:
        """As it is now. The number is asked for first, lest a change slip in between."""
        now = generation(self._commands.netns)
        if self._last is not None and self._last[0] == now:
            return self._last[1]
        listing = await read(self._commands, self._table)
        self._last = None if now is None else (now, listing)
        return listing


def _parse(text: str) -> Listing:
    """With hundreds of ports this takes tens of milliseconds, which belong to no event loop."""
    listing = Listing()
    for item in json.loads(text)["nftables"]:
        for kind, body in item.items():
            _take(listing, kind, body)
    return listing


def _take(listing: Listing, kind: str, body: dict[str, Any]) -> None:
    match kind:
        case "chain":
            listing.chains[body["name"]] = []
            if "hook" in body:
                listing.hooks[body["name"]] = (body["hook"], body["prio"], body["policy"])
        case "rule":
            listing.chains[body["chain"]].append(_text(body["expr"]))
            if "comment" in body:
                listing.comments.setdefault(body["chain"], []).append(body["comment"])
        case "map":
            listing.elements[body["name"]] = {k: _text(v) for k, v in body.get("elem", [])}
        case "set":
            listing.elements[body["name"]] = dict.fromkeys(body.get("elem", []), "")


def _jump(chain: str) -> str:
    return _text({"jump": {"target": chain}})


def _text(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return json.dumps(_sorted(value), sort_keys=True) if '"set"' in text else text


def _sorted(value: object) -> object:
    """The kernel keeps anonymous sets in no order."""
    if isinstance(value, dict):
        members = value.get("set")
        if isinstance(members, list):
            return {"set": sorted(json.dumps(_sorted(m), sort_keys=True) for m in members)}
        return {key: _sorted(inner) for key, inner in value.items()}
    return [_sorted(inner) for inner in value] if isinstance(value, list) else value
