"""Disks that are a guest's own: files in its folder, which go where the guest goes.

A disk elsewhere (an absolute path) is on storage that hosts share, and is nobody's to copy or to
remove. What is made here for an arrival is in the mark `made` before it is there, until the guest
runs: so it is found and removed when the guest does not come, and a file that was there before
never is.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import Reason, Refusal
from common.model.disk import Disk
from vserver.hypervisor.qemu.definition import OWN_DISK, Definition
from vserver.hypervisor.qemu.guests import refused
from vserver.hypervisor.qemu.home import Home

MADE = "made"
_QCOW2 = b"QFI\xfb"
_IMAGE_TOOL, _MAKE_PATIENCE = "qemu-img", 60.0


def numbers(definition: Definition, disks: Iterable[Disk]) -> list[int]:
    """Which of the guest's disks these are. Raises if they are not all there is to copy."""
    own = {str(d.path): n for n, d in enumerate(definition.disk) if d.own}
    wanted = [disk.path for disk in disks]
    if sorted(wanted) != sorted(own):
        raise refused(f"the guest's disks are {', '.join(own) or 'none'}; look, and move it again")
    return [own[path] for path in wanted]


def sizes(home: Home) -> dict[str, tuple[int, int]]:
    """Bytes that the guest sees, and bytes that the host gives, of each own disk. Blocking."""
    launch = home.launch()
    known = (launch.definition if launch else None, home.definition())
    found = {str(d.path): d for each in known if each for d in each.disk if d.own}.values()
    return {str(d.path): size for d in found if (size := _size(home.file(str(d.path)), d.format))}


def _size(file: Path, kind: str) -> tuple[int, int] | None:
    try:
        facts = file.stat()
        with file.open("rb") as image:
            head = image.read(32)
    except OSError:
        return None
    qcow2 = kind == "qcow2" and head.startswith(_QCOW2) and len(head) == 32
    virtual = int.from_bytes(head[24:32], "big") if qcow2 else facts.st_size
    return virtual, facts.st_blocks * 512


async def make(home: Home, disks: Sequence[Disk]) -> None:
    """Empty ones; those that were made for this guest already stay. Under the guest's lock."""
    if strange := [disk.path for disk in disks if not re.fullmatch(OWN_DISK, disk.path)]:
        raise refused(f"{strange[0]!r} is no disk in a guest's folder")
    if problem := next((disk.problem for disk in disks if disk.problem), ""):
        raise refused(problem)
    with home.alone():
        made = await asyncio.to_thread(_made, home)
        fresh = [disk for disk in disks if disk.path not in made]
        if taken := [disk.path for disk in fresh if home.has(disk.path)]:
            raise refused(f"{home.file(taken[0])} is there already")
        await asyncio.to_thread(_refuse_if_full, home, disks)
        names = [*made, *(disk.path for disk in fresh)]
        await asyncio.to_thread(home.mark, MADE, json.dumps(names))
        for disk in disks:
            if not home.has(disk.path):
                await _create(home.file(disk.path), disk)


def keep(home: Home) -> None:
    """What was made is the guest's from now on."""
    home.unmark(MADE)


def clear(home: Home) -> None:
    """The guest does not come: what was made for it goes. Blocking."""
    remove(home, _made(home))
    home.unmark(MADE)
    home.fold()


def remove(home: Home, names: Iterable[str]) -> None:
    for name in names:
        if re.fullmatch(OWN_DISK, name):
            home.file(name).unlink(missing_ok=True)


def _made(home: Home) -> list[str]:
    try:
        return [str(name) for name in json.loads(home.file(MADE).read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise refused(f"{home.file(MADE)} cannot be used: {error}") from error


def _refuse_if_full(home: Home, disks: Iterable[Disk]) -> None:
    needed, free = sum(disk.used for disk in disks), home.free_bytes()
    if needed > free:
        text = f"the disks take {needed} bytes, {home.path} has {free} left"
        raise Refusal(Reason.NO_CAPACITY, text)


async def _create(file: Path, disk: Disk) -> None:
    argv = [_IMAGE_TOOL, "create", "-q", "-f", disk.format, str(file), str(disk.bytes)]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(_MAKE_PATIENCE):
            _, words = await process.communicate()
    except OSError as error:
        raise refused(f"cannot run {_IMAGE_TOOL}: {error}") from error
    if process.returncode:
        raise refused(f"{_IMAGE_TOOL}: {words.decode(errors='replace').strip()[-500:]}")
