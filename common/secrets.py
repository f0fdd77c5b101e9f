"""Files that nobody else may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class LooseFile(Exception):
    """A key that others can read or replace is no secret any more."""


def read_private(path: Path) -> bytes:
    """Raises `LooseFile` unless it is its owner's alone, and the owner is us or root; OSError."""
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if stat.S_IMODE(facts.st_mode) & 0o077:
            mode = stat.S_IMODE(facts.st_mode)
            raise LooseFile(f"{path}: others may read it (mode {mode:04o}): chmod 600 {path}")
        if facts.st_uid not in (0, os.geteuid()):
            raise LooseFile(f"{path}: it belongs to user {facts.st_uid}: chown it to who reads it")
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, durable, and at no instant readable by others."""
    _replace(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """The same for what everybody may read."""
    _replace(path, content, 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
