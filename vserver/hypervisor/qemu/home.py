"""A guest's directory: what it is, how it was started, and marks that outlive every agent.

    definition.json   what it shall be at its next start
    launch.json       what was started: its definition then, its taps, its accelerator
    pid, agent, hand, console, qemu.log     of its QEMU; `hand` is the second monitor, for people
    made              disks that were made here for a guest that has not run here yet
    incoming          it came here by a move and has never run here: it may be discarded; in it
                      the word `held`, if it may be started before the last of its memory is here
    standing          its guest was stopped for the copy that has begun; it runs on if that fails
    standby           disks are taken here for it, which is no guest of this host (yet)
    receiver          the pid of who takes them, or those of a guest that is off, on its way here;
                      `receiver.port`: where
    mirrored          its disks are mirrored to another host
    leaving           its copy to another host has begun: it may run there, so nobody starts it here
    held              that copy is gated: once it has been sent, only the ledger says where it runs

The directory of all guests must be readable for anything to be said: were it not mounted, say, no
guest would be known, and "not here" would be a lie.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from common.config import Section
from common.errors import Reason, Refusal
from common.model.identity import parse_vm_id
from vserver.hypervisor.qemu.definition import Definition

_OURS = ("definition.json", "launch.json", "pid", "agent", "hand", "console", "qemu.log")
STANDBY, MIRRORED, HELD = "standby", "mirrored", "held"
_MARKS = ("incoming", "standing", "leaving", HELD, MIRRORED)
_MAX_PATH = 60  # a Unix socket's path has 107 bytes; a guest's id and the file's name 44

S = TypeVar("S", bound=Section)


class Launch(Section):
    """How a QEMU was started. `machine` is the versioned type, which migration depends on."""

    definition: Definition
    taps: Mapping[str, str]
    accelerator: str
    machine: str


@dataclass(frozen=True, slots=True)
class Home:
    path: Path

    @property
    def vm_id(self) -> str:
        return self.path.name

    def file(self, name: str) -> Path:
        return self.path / name

    def definition(self) -> Definition | None:
        return self._read("definition.json", Definition)

    def launch(self) -> Launch | None:
        return self._read("launch.json", Launch)

    def has(self, mark: str) -> bool:
        return self.file(mark).exists()

    def mark(self, mark: str, text: str = "") -> None:
        """Durable before this returns."""
        self._write(mark, text)

    def unmark(self, mark: str) -> None:
        """As soon as the file is gone; a host that loses power has lost the guest with it."""
        self.file(mark).unlink(missing_ok=True)

    def define(self, definition: Definition) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._write("definition.json", definition.model_dump_json(indent=2))

    def started(self, launch: Launch) -> None:
        self._write("launch.json", launch.model_dump_json(indent=2))

    def remove(self) -> None:
        """What is ours, the definition last of all; disks, and a person's own files, stay."""
        for name in (*_OURS[1:], *_MARKS, _OURS[0]):
            self.file(name).unlink(missing_ok=True)
        self.fold()

    def fold(self) -> None:
        """The directory itself, if nothing is left in it but the lock."""
        try:
            if {entry.name for entry in self.path.iterdir()} <= {"lock"}:
                self.file("lock").unlink(missing_ok=True)
                self.path.rmdir()
        except FileNotFoundError:
            pass
        except OSError:  # somebody has just put something there
            return

    def free_bytes(self) -> int:
        """What its file system has left for us."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Agent and person do not start or remove it at the same time: refused while one does."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        with self.file("lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal(
                    Reason.HYPERVISOR_FAILED, f"guest {self.vm_id} is being changed; try again"
                ) from None
            yield

    def _read(self, name: str, model: type[S]) -> S | None:
        try:
            return model.model_validate_json(self.file(name).read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise Refusal(
                Reason.HYPERVISOR_FAILED, f"{self.file(name)} cannot be used: {error}"
            ) from error

    def _write(self, name: str, text: str) -> None:
        fresh = self.file(f"{name}.new")
        with fresh.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.file(name))
        directory = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@dataclass(frozen=True, slots=True)
class Homes:
    """All guests of this host."""

    root: Path

    def make(self) -> None:
        """The directory, if it is not there yet."""
        if len(str(self.root)) > _MAX_PATH:
            raise Refusal(
                Reason.HYPERVISOR_FAILED,
                f"{self.root}: at most {_MAX_PATH} characters, for sockets are kept below it",
            )
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, vm_id: str) -> Home:
        return Home(self.root / parse_vm_id(vm_id))

    def check(self) -> None:
        """Refuse to say anything while the directory is away."""
        self._names()

    def all(self) -> list[Home]:
        return [Home(self.root / name) for name in self._names() if _is_id(name)]

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.root.iterdir())
        except OSError as error:
            raise Refusal(
                Reason.HYPERVISOR_FAILED, f"the directory of guests cannot be read: {error}"
            ) from error


def _is_id(name: str) -> bool:
    try:
        return parse_vm_id(name) == name
    except ValueError:
        return False
