"""Which capabilities an agent asks for, and how it knows that it has them."""

from __future__ import annotations

import pytest

from common.config import parse
from vserver.config import AgentConfig
from vserver.privileges import KILL, NET_ADMIN, NET_RAW, READ, Privilege, held, needed

STATUS = "Name:\tvserver\nCapPrm:\t000001ffffffffff\nCapEff:\t{}\nCapBnd:\t000001ffffffffff\n"


CONFIG = """
server_id = "host-1"
management_address = "127.0.0.1"
vtep_address = "127.0.0.1"
vcenter = ["127.0.0.1:1"]
state_dir = "/var/lib/vsignal-agent"
plaintext = true
hypervisor = "{}"
network = "{}"
"""


@pytest.mark.parametrize(
    ("adaptors", "expected"),
    [
        (("memory", "memory"), []),
        (("memory", "linux"), [NET_ADMIN, NET_RAW]),
        (("libvirt", "linux"), [NET_ADMIN, NET_RAW, KILL, READ]),
    ],
)
def test_no_more_is_asked_for_than_is_used(
    adaptors: tuple[str, str], expected: list[Privilege]
) -> None:
    config = parse(CONFIG.format(*adaptors), AgentConfig)
    assert list(needed(config)) == expected


@pytest.mark.parametrize(
    ("effective", "expected"),
    [
        ("0000000000000000", set()),
        ("0000000000001000", {NET_ADMIN}),
        ("0000000000003000", {NET_ADMIN, NET_RAW}),
        ("0000000000000024", {KILL, READ}),
        ("000001ffffffffff", {NET_ADMIN, NET_RAW, KILL, READ}),
    ],
)
def test_what_is_effective_counts(effective: str, expected: set[Privilege]) -> None:
    status = STATUS.format(effective)
    assert {one for one in (NET_ADMIN, NET_RAW, KILL, READ) if held(one, status)} == expected
