"""A VM's own disk: a file that it alone writes to."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("raw", "qcow2")
MAX_PATH = 1024


@dataclass(frozen=True, slots=True)
class Disk:
    """`path` is the same on every host; without a slash, it is in the VM's own folder there.
    `bytes` is what the guest sees, `used` what it takes of the host's storage; both are 0 where
    nobody has looked. `local`: on storage that is this host's alone, for certain."""

    path: str
    format: str
    bytes: int = 0
    used: int = 0
    local: bool = False

    @property
    def problem(self) -> str:
        """Why it cannot be copied; "" if it can. A path becomes a file on another host, so nothing
        about it is taken on trust."""
        whole = self.path.startswith("/") or "/" not in self.path
        plain = self.path.isprintable() and not {"", ".", ".."} & set(self.path.split("/")[-1:])
        if not (whole and plain and ".." not in self.path.split("/")) or len(self.path) >= MAX_PATH:
            return f"{self.path[:100]!r} is no path for a copy"
        if self.format not in FORMATS:
            return f"{self.path} is neither {' nor '.join(FORMATS)}"
        return "" if self.bytes else f"nobody has said yet how big {self.path} is"
