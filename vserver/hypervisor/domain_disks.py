"""A domain's own disks, by its XML: files that it writes to, and shares with nobody."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from common.model.disk import Disk


def own_disks(root: ET.Element) -> tuple[Disk, ...]:
    """Sizes are not in the XML. What is no file is on storage that others see, too."""
    return tuple(Disk(path, kind) for path, kind, _ in _files(root))


def targets(root: ET.Element) -> dict[str, str]:
    """The same by path: what each is called in the guest (`vda`)."""
    named = ((path, disk.find("target")) for path, _, disk in _files(root))
    return {path: target.get("dev", "") for path, target in named if target is not None}


def based(root: ET.Element) -> list[str]:
    """Those that only hold what differs from another file."""
    below = "backingStore/source"
    return [path for path, _, disk in _files(root) if disk.find(below) is not None]


def _files(root: ET.Element) -> Iterator[tuple[str, str, ET.Element]]:
    for disk in root.iterfind("devices/disk"):
        source, driver = disk.find("source"), disk.find("driver")
        path = "" if source is None else source.get("file", "")
        apart = disk.find("readonly") is not None or disk.find("shareable") is not None
        if path and not apart and disk.get("device", "disk") == "disk":
            yield path, "raw" if driver is None else driver.get("type", "raw"), disk
