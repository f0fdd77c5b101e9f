"""Who takes the copies of a VM's disks: QEMU's storage daemon, which outlives every agent.

It serves the files by NBD, by TLS to whoever has a certificate of our CA, or in clear where copies
travel in clear. While it lives its files are locked: no guest can be started on them.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from vserver.hypervisor.qemu import process

BINARY = "qemu-storage-daemon"
_WORD = b"--daemonize"


@dataclass(frozen=True, slots=True)
class Image:
    """`path` here; `number` is how the sender calls it: it is exported as `diskNUMBER`."""

    number: int
    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class Receiver:
    """One VM's. `pki`: where this host's certificate for copies is; None: in clear."""

    pid_file: Path
    host: str
    pki: Path | None

    async def serve(self, images: Sequence[Image]) -> int:
        """The port at which the images are written to: where they are already, if they are."""
        words = [str(self.pid_file).encode(), *(word.encode() for word in _drives(images))]
        found = await asyncio.to_thread(process.searched, self.pid_file, words)
        if found is not None:
            found.close()
            with suppress(OSError, ValueError):  # it was not told any more
                return int(await asyncio.to_thread(self._port_file.read_text))
        port = await self.start(images)
        await asyncio.to_thread(self._port_file.write_text, str(port))
        return port

    async def start(self, images: Sequence[Image]) -> int:
        """Anew: any that was there before has ended."""
        await self.stop()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with closing(socket.create_server((self.host, 0), family=family)) as listener:
            argv = self._command(images, listener.fileno())
            await process.start(argv, pass_fds=(listener.fileno(),))
            return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """What it has taken is in the files when this returns."""
        words = (str(self.pid_file).encode(), _WORD)
        found = await asyncio.to_thread(process.searched, self.pid_file, words)
        if found is not None:
            try:
                found.end()
                await process.ended(found)
            finally:
                found.close()
        for file in (self._port_file, self.pid_file):
            await asyncio.to_thread(file.unlink, missing_ok=True)

    @property
    def _port_file(self) -> Path:
        return self.pid_file.with_name(self.pid_file.name + ".port")

    def _command(self, images: Sequence[Image], listener: int) -> list[str]:
        argv = [BINARY, _WORD.decode(), "--pidfile", str(self.pid_file)]
        server = f"addr.type=fd,addr.str={listener}"
        if self.pki is not None:
            keys = f"tls-creds-x509,id=tls,dir={quoted(self.pki)},endpoint=server,verify-peer=on"
            argv += ["--object", keys]
            server += ",tls-creds=tls"
        argv += [word for drive in _drives(images) for word in ("--blockdev", drive)]
        argv += ["--nbd-server", server]
        for image in images:
            name = f"disk{image.number}"
            export = f"type=nbd,id=export{image.number},node-name={name},name={name},writable=on"
            argv += ["--export", export]
        return argv


def _drives(images: Sequence[Image]) -> Iterator[str]:
    for image in images:
        yield f"driver=file,node-name=file{image.number},filename={quoted(image.path)}"
        yield f"driver={image.format},node-name=disk{image.number},file=file{image.number}"


def available() -> bool:
    return shutil.which(BINARY) is not None


def quoted(path: Path) -> str:
    """A comma in an option's value is doubled."""
    return str(path).replace(",", ",,")
