"""Which ports a host should have (I5): table by table, no I/O."""

from __future__ import annotations

import pytest

from common.model.operation import MoveStep
from common.model.vm import Interface, VmState
from common.model.wanted import PortState
from tests.unit.agent_values import MAC, MAC_2, NIC, OTHER, VM, hosted, port, wanted
from vserver.core.ports import desired_ports
from vserver.core.taps import incoming_device
from vserver.hypervisor.port import HostedVm, Tap

OPEN, CLOSED = PortState.OPEN, PortState.CLOSED
COMING = incoming_device(MAC)
RUNNING, INCOMING, OFF = VmState.RUNNING, VmState.INCOMING, VmState.SHUT_OFF


def test_a_tap_is_named_before_it_exists() -> None:
    assert COMING.startswith("vsp") and len(COMING) <= 15
    assert incoming_device(MAC) == COMING != incoming_device(MAC_2)


@pytest.mark.parametrize(
    ("ports", "step", "here", "expected"),
    [
        # no move: the taps of what is here, open or closed as wanted
        (OPEN, None, hosted(), {"vnet0": True}),
        (CLOSED, None, hosted(), {"vnet0": False}),
        (OPEN, None, None, {}),
        (OPEN, None, hosted(state=OFF, device=""), {}),
        # a destination that prepares: closed whatever is wanted, before the tap exists and after
        (OPEN, MoveStep.PREPARE, None, {COMING: False}),
        (CLOSED, MoveStep.PREPARE, None, {COMING: False}),
        (OPEN, MoveStep.PREPARE, hosted(state=INCOMING, device=COMING), {COMING: False}),
        (OPEN, MoveStep.PREPARE, hosted(state=OFF, device=""), {COMING: False}),
        # a destination that starts
        (OPEN, MoveStep.START, hosted(state=INCOMING, device=COMING), {COMING: True}),
        (OPEN, MoveStep.START, None, {COMING: True}),
        (CLOSED, MoveStep.START, hosted(state=INCOMING, device=COMING), {COMING: False}),
        (OPEN, MoveStep.START, hosted(device="vnet7"), {"vnet7": True}),
        # a source
        (OPEN, MoveStep.COPY, hosted(), {"vnet0": True}),
        (OPEN, MoveStep.ABORT, hosted(), {"vnet0": True}),
        (CLOSED, MoveStep.CLEAN, None, {}),
        (CLOSED, MoveStep.CLEAN, hosted(state=INCOMING, device=COMING), {}),
        (CLOSED, MoveStep.CLEAN, hosted(), {"vnet0": False}),
    ],
)
def test_ports_follow_from_what_is_wanted_and_what_is_here(
    ports: PortState, step: MoveStep | None, here: HostedVm | None, expected: dict[str, bool]
) -> None:
    found = desired_ports({VM: wanted(ports=ports, step=step)}, {VM: here} if here else {})
    assert {device: p.is_open for device, p in found.items()} == expected


def test_a_port_has_the_wanted_addresses_and_profile() -> None:
    assert desired_ports({VM: wanted()}, {VM: hosted()}) == {"vnet0": port()}


@pytest.mark.parametrize(
    "nics",
    [
        (Interface(MAC, ("10.1.0.1",), "", 0),),  # no VNI yet
        (Interface(MAC_2, (), "blue", 1001),),  # another interface
        (NIC, Interface(MAC, (), "red", 1002)),  # two with one MAC
    ],
)
def test_a_tap_that_cannot_be_matched_gets_no_port(nics: tuple[Interface, ...]) -> None:
    assert desired_ports({VM: wanted(nics=nics)}, {VM: hosted()}) == {}


def test_a_vm_that_is_not_wanted_gets_no_port() -> None:
    assert desired_ports({}, {VM: hosted()}) == {}


def test_each_interface_has_its_own_port() -> None:
    second = Interface(MAC_2, (), "red", 1002)
    here = HostedVm(hosted().vm, RUNNING, (Tap(MAC, "b", "vnet0"), Tap(MAC_2, "b", "vnet1")))
    found = desired_ports({VM: wanted(nics=(NIC, second))}, {VM: here})
    assert {d: p.vni for d, p in found.items()} == {"vnet0": 1001, "vnet1": 1002}


def test_vms_do_not_share_ports() -> None:
    nic = Interface(MAC_2, (), "blue", 1001)
    found = desired_ports(
        {VM: wanted(), OTHER: wanted(OTHER, ports=CLOSED, nics=(nic,))},
        {VM: hosted(), OTHER: hosted(OTHER, device="vnet1", mac=MAC_2)},
    )
    assert {d: p.is_open for d, p in found.items()} == {"vnet0": True, "vnet1": False}
