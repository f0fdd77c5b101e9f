"""Who sends the disks of a VM that is off: QEMU's image tool, to the receiver on another host.

Nothing runs for it, so that nothing can go wrong with what runs. While an image is read, QEMU's own
lock on it keeps everybody from starting its guest; so the tool ends with the agent that began it.
What has been sent is on the receiver's storage, durably, before it is said to be.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from common.errors import Reason, Refusal
from vserver.hypervisor.receiver import Image, quoted

_TOOL, _FLUSHER = "qemu-img", "qemu-io"
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_SHARE = re.compile(rb"\((\d+\.\d+)/100%\)")
_AT_ONCE, _WORDS = 4096, 2000  # bytes
_CALLED_OFF = "the copy was called off"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a receiver listens. `name`: what its certificate must say; "": in clear."""

    host: str
    port: int
    name: str

    @classmethod
    def of(cls, uri: str, port: int, *, encrypt: bool) -> Target:
        """`uri`: the destination's, as for a move."""
        plain, name = urldefrag(uri)
        host = urlsplit(plain).hostname
        if not host:
            raise _refused(f"no host in the migration URI {uri!r}")
        if encrypt != bool(name):
            raise _refused(f"{host} and this host are not of one mind on encryption")
        return cls(host, port, name)


def available() -> bool:
    return all(shutil.which(tool) for tool in (_TOOL, _FLUSHER, _WITH_US[0]))


class Senders:
    """Those under way from this host, by VM. `pki`: our certificate for copies; None: in clear."""

    def __init__(self, pki: Path | None) -> None:
        self._pki = pki
        self._stops: dict[str, asyncio.Event] = {}

    async def send(
        self,
        vm_id: str,
        images: Sequence[Image],
        destination: str,
        port: int,
        told: Callable[[int, float], None],
    ) -> None:
        """Return when all images are over there. `told`: how much of which, from 0 to 1. Refused if
        it failed or was called off; then nobody knows what is over there."""
        target = Target.of(destination, port, encrypt=self._pki is not None)
        if vm_id in self._stops:
            raise _refused(f"the disks of VM {vm_id} are being copied already")
        stop = self._stops[vm_id] = asyncio.Event()
        try:
            for number, image in enumerate(images):
                await _run(self._copying(image, target), stop, partial(told, number))
                await _run(self._flushing(image, target), stop, lambda _: None)
        finally:
            del self._stops[vm_id]

    def abort(self, vm_id: str) -> None:
        """It ends soon. Nothing under way is no error."""
        if stop := self._stops.get(vm_id):
            stop.set()

    def _copying(self, image: Image, target: Target) -> list[str]:
        source = f"driver={image.format},file.driver=file,file.filename={quoted(image.path)}"
        options = ["-n", "-p", "-t", "writeback", "--image-opts", "--target-image-opts"]
        return [_TOOL, "convert", *self._keys(), *options, source, self._export(image, target)]

    def _flushing(self, image: Image, target: Target) -> list[str]:
        """The tool itself does not tell whether its last words were heard."""
        export = self._export(image, target)
        return [_FLUSHER, *self._keys(), "--image-opts", "-c", "flush", export]

    def _keys(self) -> list[str]:
        if self._pki is None:
            return []
        place = quoted(self._pki)
        return ["--object", f"tls-creds-x509,id=tls,dir={place},endpoint=client,verify-peer=on"]

    def _export(self, image: Image, target: Target) -> str:
        server = f"server.type=inet,server.host={target.host},server.port={target.port}"
        export = f"driver=nbd,{server},export=disk{image.number}"
        return f"{export},tls-creds=tls,tls-hostname={target.name}" if self._pki else export


async def _run(command: Sequence[str], stop: asyncio.Event, told: Callable[[float], None]) -> None:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *_WITH_US, *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise _refused(f"cannot run {command[0]}: {error}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    stopping = asyncio.create_task(_killed(process, stop))
    try:
        _, words = await asyncio.gather(_follow(process.stdout, told), _tail(process.stderr))
        ended = await process.wait()
    finally:
        stopping.cancel()
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if stop.is_set():
        raise _refused(_CALLED_OFF)
    if ended:
        raise _refused(f"{command[0]}: {words.decode(errors='replace').strip()}")


async def _killed(process: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
    await stop.wait()
    with suppress(ProcessLookupError):
        process.kill()


async def _follow(said: asyncio.StreamReader, told: Callable[[float], None]) -> None:
    """`(12.50/100%)` and a carriage return, again and again."""
    rest = b""
    while more := await said.read(_AT_ONCE):
        *lines, rest = (rest[-_AT_ONCE:] + more).split(b"\r")
        if lines and (share := _SHARE.search(lines[-1])):
            told(float(share[1]) / 100)


async def _tail(said: asyncio.StreamReader) -> bytes:
    words = b""
    while more := await said.read(_AT_ONCE):
        words = (words + more)[-_WORDS:]
    return words


def _refused(text: str) -> Refusal:
    return Refusal(Reason.HYPERVISOR_FAILED, text)
