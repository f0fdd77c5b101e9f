"""Which domains there are, how their vCenters know of each other, and where the hosts are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploy.simulation.center import Site
from vcenter.federation.settings import DomainSettings


@dataclass(frozen=True, slots=True)
class Country:
    """`hosts`: of each domain that has some. `near`: the domains whose members of a network the
    hosts of a domain are told of, its own among them."""

    name: str
    sites: tuple[Site, ...]
    hosts: Mapping[str, tuple[str, ...]]
    near: Mapping[str, frozenset[str]]


def _neighbour(name: str, relation: str) -> DomainSettings:
    said = {"name": name, "address": f"unix:/{name}", "relation": relation}
    return DomainSettings.model_validate(said | {"vouches": "admin", "twins": "freeze"})


def _below(parent: str, children: Iterable[str]) -> dict[str, list[DomainSettings]]:
    """The one table for the parent, and one for each child."""
    settings = {child: [_neighbour(parent, "parent")] for child in children}
    return {parent: [_neighbour(child, "child") for child in settings], **settings}


def _sites(settings: Mapping[str, Iterable[DomainSettings]]) -> tuple[Site, ...]:
    return tuple(Site(name, name, tuple(domains)) for name, domains in settings.items())


def _levels() -> Country:
    """The root over a center and a domain, and two domains below that center."""
    settings = _below("root", ("middle", "far"))
    for name, domains in _below("middle", ("east", "west")).items():
        settings.setdefault(name, []).extend(domains)
    near = {name: frozenset({name}) for name in settings}
    near["east"] = near["west"] = near["middle"] = frozenset({"middle", "east", "west"})
    return Country(
        "three levels",
        _sites(settings),
        {"east": ("e1", "e2"), "west": ("w1",), "far": ("f1",)},
        near,
    )


def _peers() -> Country:
    names = ("east", "west", "south")
    settings = {
        name: [_neighbour(other, "peer") for other in names if other != name] for name in names
    }
    return Country(
        "three peers",
        _sites(settings),
        {"east": ("e1", "e2"), "west": ("w1",), "south": ("s1",)},
        dict.fromkeys(names, frozenset(names)),
    )


LEVELS, PEERS = _levels(), _peers()
