"""The mark that a VM carries at its destination from the first byte until it is started there.

libvirt calls a domain that a paused migration brought "paused by the user", and nothing else of
it tells whether it has ever run here. Our mark does, in the live XML's metadata, so that an agent
that was restarted in between still knows; a mark on a VM *here* makes it ours to discard. It is
taken off before the VM is resumed: a crash between the two leaves a paused VM that somebody must
resume, never a VM that has run and may be discarded. It also carries what a migration forgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from vserver.hypervisor.metadata import parse

NAMESPACE = "urn:vsignal:move:1"
_MARK = f"{{{NAMESPACE}}}incoming"

ET.register_namespace("vsignal-move", NAMESPACE)


def destination_xml(xml: str, devices: Mapping[str, str], mark: Mapping[str, str] | None) -> str:
    """The source's live XML as the destination shall have it: its taps named, and marked, unless
    there is nothing to say."""
    root = parse(xml)
    metadata = root.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(root, "metadata")
    for old in metadata.findall(_MARK):
        metadata.remove(old)
    if mark is not None:
        ET.SubElement(metadata, _MARK, dict(mark))
    for interface in root.iterfind("devices/interface"):
        _name_tap(interface, devices)
    return ET.tostring(root, encoding="unicode")


def is_marked(xml: str) -> bool:
    """Whether a live XML carries the mark; a text search first, for most do not. One that came
    through the gate remembers autostart only: it may have run."""
    if NAMESPACE not in xml:
        return False
    mark = parse(xml).find(f"metadata/{_MARK}")
    return mark is not None and mark.get("gated") != "yes"


def mark_of(*, autostart: bool, gated: bool) -> dict[str, str] | None:
    """The mark's attributes. What the destination's gate holds needs none to be known by."""
    said = {"autostart": "yes"} if autostart else {}
    if gated:
        return {**said, "gated": "yes"} if autostart else None
    return said


def wants_autostart(mark: str) -> bool:
    """What the mark, as an element of its own, remembers of the source."""
    return parse(mark).get("autostart") == "yes"


def _name_tap(interface: ET.Element, devices: Mapping[str, str]) -> None:
    mac = interface.find("mac")
    device = devices.get(mac.get("address", "").lower()) if mac is not None else None
    if device is None:
        return
    target = interface.find("target")
    if target is None:
        target = ET.SubElement(interface, "target")
    target.set("dev", device)
