"""Our element in a domain's metadata, read strictly: a typing error must not open a port.

    <vsignal:vm xmlns:vsignal="urn:vsignal:vm:1" tenant="acme" group="web">
      <vsignal:interface mac="52:54:00:00:00:01" network="blue" vni="1001">
        <vsignal:ip address="10.1.0.5"/>
      </vsignal:interface>
    </vsignal:vm>

Tenant and MAC are required. Every ValueError names the element and the attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from xml.etree import ElementTree as ET

from common.model.identity import parse_ip, parse_mac, parse_name, parse_vni
from common.model.vm import Interface

NAMESPACE = "urn:vsignal:vm:1"
VM_ELEMENT = f"{{{NAMESPACE}}}vm"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assignment:
    """To whom a VM belongs, and what is said of its interfaces, by MAC."""

    tenant: str
    group: str
    interfaces: Mapping[str, Interface]


def read_assignment(element: ET.Element, macs: Sequence[str]) -> Assignment:
    """What `<vsignal:vm>` says of a VM whose interfaces have these MACs."""
    _check(element, "vm", {"tenant", "group"}, "interface")
    interfaces: dict[str, Interface] = {}
    for child in element:
        interface = _interface(child, macs)
        if interface.mac in interfaces:
            raise ValueError(f"<interface> mac: {interface.mac} is described twice")
        interfaces[interface.mac] = interface
    tenant = _parsed(element, "vm", "tenant", parse_name)
    return Assignment(tenant, _optional(element, "vm", "group", parse_name, ""), interfaces)


def _interface(element: ET.Element, macs: Sequence[str]) -> Interface:
    _check(element, "interface", {"mac", "network", "vni"}, "ip")
    mac = _parsed(element, "interface", "mac", parse_mac)
    if macs.count(mac) != 1:
        having = "several interfaces have" if mac in macs else "no interface has"
        raise ValueError(f"<interface> mac: {having} {mac}")
    where = f"interface mac={mac}"
    return Interface(
        mac=mac,
        ips=tuple(_ip(child, where) for child in element),
        network=_optional(element, where, "network", parse_name, ""),
        vni=_optional(element, where, "vni", _vni, 0),
    )


def _ip(element: ET.Element, where: str) -> str:
    _check(element, "ip", {"address"}, None)
    return _parsed(element, f"ip of {where}", "address", parse_ip)


def _vni(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"not a number: {text!r}")
    return parse_vni(int(text))


def _optional(
    element: ET.Element, where: str, attribute: str, parser: Callable[[str], T], absent: T
) -> T:
    """An attribute that is there must be right; one that is not there says nothing."""
    present = attribute in element.attrib
    return _parsed(element, where, attribute, parser) if present else absent


def _parsed(element: ET.Element, where: str, attribute: str, parser: Callable[[str], T]) -> T:
    try:
        return parser(element.get(attribute, ""))
    except ValueError as error:
        raise ValueError(f"<{where}> {attribute}: {error}") from None


def _check(element: ET.Element, name: str, attributes: set[str], child: str | None) -> None:
    for unknown in sorted(set(element.attrib) - attributes):
        raise ValueError(f"<{name}> {_bare(unknown)}: unknown attribute")
    for inner in element:
        if child is None or inner.tag != f"{{{NAMESPACE}}}{child}":
            raise ValueError(f"<{_bare(inner.tag)}>: unknown element in <{name}>")


def _bare(tag: str) -> str:
    return tag.rpartition("}")[2]
