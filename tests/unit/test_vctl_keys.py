"""How a VM, an attachment and a group are written on the command line."""

from __future__ import annotations

import pytest

from vcenter.ctl.keys import parse_attachment, parse_group, parse_key

ID = "0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10"


def test_a_uuid() -> None:
    key = parse_key(ID.upper())
    assert key is not None
    assert key.vm_id == ID


def test_a_mac_in_a_vni() -> None:
    key = parse_key("5001/52-54-00-AB-00-01")
    assert key is not None
    assert (key.mac.vni, key.mac.mac) == (5001, "52:54:00:ab:00:01")


@pytest.mark.parametrize(
    ("text", "ip"), [("5001/10.1.0.5", "10.1.0.5"), ("5001/FD00:0::5", "fd00::5")]
)
def test_an_ip_in_a_vni(text: str, ip: str) -> None:
    key = parse_key(text)
    assert key is not None
    assert (key.ip.vni, key.ip.ip) == (5001, ip)


def test_what_is_left_is_a_name() -> None:
    assert parse_key("web-1") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("10.1.0.5", "without its VNI"),
        ("52:54:00:00:00:01", "without its VNI"),
        ("blue/10.1.0.5", "VNI/MAC or VNI/IP"),
        ("0/10.1.0.5", "1..16777215"),
        ("16777216/10.1.0.5", "1..16777215"),
        ("5001/web", "not an IP address"),
        ("5001/224.0.0.1", "can own"),
        ("5001/01:00:5e:00:00:01", "multicast"),
    ],
)
def test_neither(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_key(text)


def test_an_attachment() -> None:
    full = parse_attachment("52:54:00:00:00:01=blue:5001@10.1.0.5,fd00::5")
    assert (full.mac, full.network, full.vni) == ("52:54:00:00:00:01", "blue", 5001)
    assert list(full.ips) == ["10.1.0.5", "fd00::5"]
    brief = parse_attachment("52:54:00:00:00:01=blue")
    assert (brief.network, brief.vni, list(brief.ips)) == ("blue", 0, [])
    assert list(parse_attachment("52:54:00:00:00:01=blue@fd00::5").ips) == ["fd00::5"]


@pytest.mark.parametrize(
    "text",
    [
        "52:54:00:00:00:01",
        "52:54:00:00:00:01=",
        "52:54:00:00:00:01=blue:",
        "52:54:00:00:00:01=blue:x",
        "52:54:00:00:00:01=blue:0",
        "52:54:00:00:00:01=blue@",
        "52:54:00:00:00:01=blue@10.1.0.5,",
        "52:54=blue",
        "52:54:00:00:00:01=Blue",
    ],
)
def test_no_attachment(text: str) -> None:
    with pytest.raises(ValueError):
        parse_attachment(text)


def test_a_group() -> None:
    assert parse_group("acme/web") == ("acme", "web")
    for text in ("acme", "/web", "acme/", "acme/web/1"):
        with pytest.raises(ValueError):
            parse_group(text)
