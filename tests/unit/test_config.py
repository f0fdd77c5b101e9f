"""Configuration files are checked whole; each problem is named by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import ConfigError, load, parse
from common.log import Level
from vserver.config import AgentConfig, HypervisorKind

TLS = """
[tls]
identity = "/var/lib/vsignal/identity.pem"
ca = "/var/lib/vsignal/ca.pem"
"""
GOOD = f"""
server_id = "host-1"
management_address = "10.0.0.1"
vtep_address = "10.0.0.1"
vcenter = ["10.0.0.100:7400", "[fd00::1]:7400", "unix:///run/vcenter.sock"]
state_dir = "/var/lib/vsignal"

{TLS}
[libvirt]
uri = "qemu:///system"

[capacity]
memory_mib = 4096

[[attachment]]
bridge = "br0"
tenant = "acme"
vni = 1001

[[attachment]]
libvirt_network = "blue-net"
tenant = "acme"
network = "blue"

[log]
level = "debug"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, AgentConfig)
    return list(caught.value.problems)


def test_a_good_file_is_taken() -> None:
    config = parse(GOOD, AgentConfig)
    assert config.vcenter[1] == "[fd00::1]:7400"
    assert config.hypervisor is HypervisorKind.LIBVIRT
    assert config.capacity.memory_mib == 4096 and config.capacity.vcpus is None
    assert [a.bridge or a.libvirt_network for a in config.attachment] == ["br0", "blue-net"]
    assert config.log.level is Level.DEBUG
    assert config.state_dir == Path("/var/lib/vsignal")


def test_all_problems_are_said_at_once_with_their_keys() -> None:
    text = """
    server_id = "Host 1"
    vtep_address = "10.0.0.300"
    vcenter = []
    state_dir = 7
    colour = "red"
    [capacity]
    vcpus = "two"
    [[attachment]]
    bridge = "br0"
    tenant = "acme"
    vnis = [1]
    """
    found = problems(text)
    keys = {problem.split(": ", 1)[0] for problem in found}
    assert keys == {
        "server_id",
        "management_address",
        "vtep_address",
        "vcenter",
        "state_dir",
        "colour",
        "capacity.vcpus",
        "attachment[0].vnis",
    }
    assert "colour: unknown key" in found
    assert "management_address: is required" in found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"10.0.0.100:7400"', '"10.0.0.100"', "host:port"),
        ('"10.0.0.100:7400"', '"fd00::1:7400"', "host:port"),
        ('"10.0.0.100:7400"', '"host:99999"', "not a port"),
        ('"10.0.0.100:7400"', '"unix:///run/vcenter.sock"', "the same address twice"),
        ('bridge = "br0"', "", "either bridge or libvirt_network"),
        ("vni = 1001", "", "give network, vni, or both"),
        ("vni = 1001", "vni = 16777216", "less than or equal to 16777215"),
        ('libvirt_network = "blue-net"', 'bridge = "br0"', "br0 is said twice"),
        ('"/var/lib/vsignal"', '"var"', "not an absolute path"),
        ('level = "debug"', 'level = "loud"', "log.level: "),
        ("[log]", "[log", "is not TOML"),
        (TLS, "", "give the [tls] table, or plaintext = true"),
        ('server_id = "host-1"', 'server_id = "host-1"\nplaintext = true', "give the [tls] table"),
    ],
)
def test_what_does_not_fit_is_refused(old: str, new: str, said: str) -> None:
    assert said in "\n".join(problems(GOOD.replace(old, new)))


def test_a_file_that_cannot_be_read_is_a_problem_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "missing.toml", AgentConfig)
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml: cannot be read"):
        load(path, AgentConfig)
