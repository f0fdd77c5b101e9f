"""From what is to what should be: only what differs, in a safe order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.model.profile import Profile
from common.model.wanted import Forward, WantedNetwork
from tests.unit.agent_values import RATED, port
from vserver.core.diff import (
    ApplyNetwork,
    ApplyPort,
    Operation,
    RemoveNetwork,
    RemovePort,
    diff,
)
from vserver.core.readback import policy_in_force
from vserver.network.port import Observed, ObservedPort, Port

BLUE = WantedNetwork(1001, "blue", (Forward("52:54:00:00:00:09", "192.0.2.9"),), ("192.0.2.9",))
RED = WantedNetwork(1002, "red", (), ())
TAPS = frozenset({"vnet0"})


def there(*ports: ObservedPort, networks: tuple[WantedNetwork, ...] = (BLUE,)) -> Observed:
    return Observed({o.port.device: o for o in ports}, {n.vni: n for n in networks})


def seen(p: Port, *, intact: bool = True, attached: bool = True) -> ObservedPort:
    return ObservedPort(p, intact, attached)


def by_device(*ports: Port) -> dict[str, Port]:
    return {p.device: p for p in ports}


@pytest.mark.parametrize(
    ("observed", "again"),
    [
        (seen(port()), False),
        (seen(port(profile=RATED)), True),
        (seen(port(is_open=False)), True),
        (seen(port(vni=1002)), True),
        (seen(replace(port(), ips=("10.1.0.2",))), True),
        (seen(replace(port(), ips=("10.1.0.1", "10.1.0.2"))), True),
        (seen(port(), intact=False), True),
        (seen(port(), attached=False), True),
        # equal in effect
        (seen(port(profile=Profile(anti_spoofing=None))), False),
    ],
)
def test_only_what_differs_is_applied(observed: ObservedPort, again: bool) -> None:
    found = diff(by_device(port()), {1001: BLUE}, there(observed), TAPS)
    assert found == ([ApplyPort(port())] if again else [])


def test_the_order_of_addresses_means_nothing() -> None:
    two = replace(port(), ips=("10.1.0.1", "10.1.0.2"))
    turned = replace(port(), ips=("10.1.0.2", "10.1.0.1"))
    assert diff(by_device(two), {1001: BLUE}, there(seen(turned)), TAPS) == []


def test_a_tap_that_does_not_exist_need_not_be_attached() -> None:
    observed = there(seen(port("vspx", is_open=False), attached=False))
    wanted = by_device(port("vspx", is_open=False))
    assert diff(wanted, {1001: BLUE}, observed, frozenset()) == []
    assert diff(wanted, {1001: BLUE}, observed, frozenset({"vspx"})) != []


def test_ports_and_networks_that_nobody_wants_are_removed() -> None:
    observed = there(seen(port("vnet9")), networks=(BLUE, RED))
    assert diff({}, {1001: BLUE}, observed, TAPS) == [RemovePort("vnet9"), RemoveNetwork(1002)]


def test_a_network_stays_while_a_port_needs_it() -> None:
    assert diff(by_device(port()), {}, there(seen(port())), TAPS) == []


@pytest.mark.parametrize(
    ("observed", "again"),
    [
        (replace(BLUE, network=""), False),
        (replace(BLUE, vteps=()), True),
        (replace(BLUE, forwards=()), True),
        (RED, True),
    ],
)
def test_a_network_is_applied_if_it_differs_in_effect(observed: WantedNetwork, again: bool) -> None:
    found = diff({}, {1001: BLUE, 1002: RED}, there(networks=(observed, RED)), TAPS)
    assert found == ([ApplyNetwork(BLUE)] if again else [])


def test_what_passes_too_much_is_closed_before_anything_is_opened() -> None:
    closing, opening = port("vnet1", is_open=False), port("vnet2", vni=1002)
    new_closed = port("vnet3", is_open=False, vni=1002)
    observed = there(seen(port("vnet0")), seen(port("vnet1")), networks=(BLUE,))
    expected: list[Operation] = [
        RemovePort("vnet0"),
        ApplyPort(closing),
        ApplyNetwork(RED),
        ApplyPort(new_closed),
        ApplyPort(opening),
    ]
    wanted = by_device(opening, closing, new_closed)
    assert diff(wanted, {1001: BLUE, 1002: RED}, observed, TAPS) == expected


@pytest.mark.parametrize(
    ("observed", "answer"),
    [
        ((seen(port()), seen(port("vnet1"))), Profile().digest()),
        ((seen(port()),), ""),
        ((seen(port()), seen(port("vnet1"), intact=False)), ""),
        ((seen(port()), seen(port("vnet1", is_open=False))), ""),
        ((seen(port()), seen(port("vnet1", profile=RATED))), ""),
    ],
)
def test_a_policy_is_in_force_if_all_ports_agree(
    observed: tuple[ObservedPort, ...], answer: str
) -> None:
    ports = [port(), port("vnet1")]
    assert policy_in_force(ports, {o.port.device: o for o in observed}) == answer


def test_no_port_no_policy() -> None:
    assert policy_in_force([], {}) == ""
