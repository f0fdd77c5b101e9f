"""Networks as the agent hears them: in parts, by changes, and never on a doubtful ground (I4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.model.wanted import (
    Forward,
    NetworkChange,
    NetworkPart,
    WantedNetwork,
    network_digest,
)
from vserver.core.networks import Networks

VNI, OWN, FAR, OTHER = 1001, "192.0.2.1", "192.0.2.2", "192.0.2.3"
A, B, C = (f"52:54:00:00:00:0{n}" for n in range(1, 4))
Places = dict[str, str]


def digest(places: Places, *vteps: str) -> int:
    return network_digest(places.items(), vteps or set(places.values()))


def part(places: Places, whole: Places, more: int = 0, revision: int = 1) -> NetworkPart:
    forwards = tuple(Forward(*place) for place in places.items())
    network = WantedNetwork(VNI, "blue", forwards, tuple(set(places.values())))
    return NetworkPart(network, revision, digest(whole), more)


def told(places: Places) -> Networks:
    networks = Networks(OWN)
    assert networks.put(part(places, places))
    return networks


def change(before: Places, after: Places, revision: int = 2) -> NetworkChange:
    old, new = set(before.values()), set(after.values())
    return NetworkChange(
        VNI,
        revision,
        digest(before),
        digest(after),
        tuple(Forward(m, v) for m, v in after.items() if before.get(m) != v),
        tuple(before.keys() - after.keys()),
        tuple(new - old),
        tuple(old - new),
    )


def seen(networks: Networks) -> Places:
    return {f.mac: f.vtep_address for f in networks.wanted[VNI].forwards}


def test_what_is_behind_the_own_end_is_left_out_but_counts() -> None:
    networks = told({A: OWN, B: FAR})
    assert seen(networks) == {B: FAR} and networks.wanted[VNI].vteps == (FAR,)
    assert networks.held() == ((VNI, digest({A: OWN, B: FAR})),)


def test_changes_follow_each_other() -> None:
    first, second, third = {A: OWN, B: FAR}, {A: FAR, B: FAR, C: OTHER}, {A: FAR}
    networks = told(first)
    assert networks.change(change(first, second))
    assert seen(networks) == second and networks.wanted[VNI].vteps == (FAR, OTHER)
    assert networks.change(change(second, third, revision=3))
    assert seen(networks) == third and networks.wanted[VNI].vteps == (FAR,)
    assert networks.held() == ((VNI, digest(third)),)


def test_what_changes_in_other_domains_has_the_revision_of_what_is_known() -> None:
    """The vCenter's own ledger has not changed by it."""
    first, second, third = {A: OWN}, {A: OWN, B: FAR}, {A: OWN, B: OTHER}
    networks = told(first)
    assert networks.change(change(first, second, revision=1)) and seen(networks) == {B: FAR}
    assert networks.change(change(second, third, revision=1)) and seen(networks) == {B: OTHER}


@pytest.mark.parametrize(
    "wrong",
    [
        change({A: OWN}, {A: OWN, C: FAR}),  # one before it was missed
        change({A: OWN, B: FAR}, {A: OWN}, revision=0),  # from before what is known
        replace(change({A: OWN, B: FAR}, {A: OWN}), digest=7),  # gives something else
        replace(change({A: OWN, B: FAR}, {A: OWN, B: FAR, C: FAR}), forwards=()),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing_and_asks_once(wrong: NetworkChange) -> None:
    whole = {A: OWN, B: FAR}
    networks = told(whole)
    assert not networks.change(wrong)
    assert networks.change(change(whole, {A: OWN})), "on its way already: not asked for again"
    assert seen(networks) == {B: FAR}
    assert networks.put(part({C: FAR}, {C: FAR}, revision=3)) and seen(networks) == {C: FAR}
    assert networks.change(change({C: FAR}, {A: FAR}, revision=4)) and seen(networks) == {A: FAR}


def test_a_change_of_an_unknown_network_asks_for_it() -> None:
    assert not Networks(OWN).change(change({}, {A: FAR}))


def test_a_big_network_is_taken_when_its_last_part_is_there() -> None:
    networks, whole = told({C: OTHER}), {A: OTHER, B: FAR}
    assert networks.put(part({A: OTHER}, whole, more=1, revision=5))
    assert seen(networks) == {C: OTHER}
    assert networks.put(part({B: FAR}, whole, more=0, revision=5)) and seen(networks) == whole


def test_parts_that_do_not_belong_together_are_not_put_together() -> None:
    networks, whole = Networks(OWN), {A: OTHER, B: FAR}
    networks.put(part({A: OTHER}, whole, more=2, revision=5))
    assert not networks.put(part({B: FAR}, whole, more=0, revision=5)), "one is missing"
    assert networks.put(part({A: OTHER}, whole, more=1, revision=6))
    assert networks.put(part({A: FAR}, {A: FAR}, revision=7)), "given up for a newer one"
    assert seen(networks) == {A: FAR}


def test_a_new_stream_begins_with_what_is_held() -> None:
    first, second = {A: FAR}, {A: OTHER}
    networks = told(first)
    networks.put(part({B: FAR}, {B: FAR, A: FAR}, more=1, revision=9))
    networks.attach()
    assert networks.change(change(first, second, revision=1)), "another ledger counts anew"
    assert seen(networks) == second
