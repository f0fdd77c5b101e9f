"""Every name in a lab derives from its run id, so that labs can run beside each other."""

import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

VCENTER_ADDRESS = "10.0.0.100"
CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
"""What is worth keeping between runs: the guest image, libvirt's capability probes."""


def fresh_run_id() -> str:
    """A run id that nobody else uses: four characters keep socket paths short."""
    return "v" + secrets.token_hex(2)[:3]


@dataclass(frozen=True)
class Names:
    """The names of one lab's namespaces and directories."""

    run_id: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.run_id):
            raise ValueError(f"run id {self.run_id!r}: 1..8 of a-z and 0-9, a letter first")

    @property
    def work(self) -> Path:
        """Short on purpose: a Unix socket's path holds 108 bytes."""
        return Path(tempfile.gettempdir()) / f"vs-{self.run_id}"

    @property
    def underlay(self) -> str:
        """The namespace that plays the switch between the hosts."""
        return f"{self.run_id}-net"

    @property
    def vcenter(self) -> str:
        return f"{self.run_id}-vc"

    def vcenter_of(self, domain: str) -> str:
        """Where there are several domains: the namespace of one's vCenter."""
        return f"{self.run_id}-vc-{domain}"

    def host(self, number: int) -> str:
        return f"{self.run_id}-h{number}"

    def probe(self, name: str) -> str:
        return f"{self.run_id}-p-{name}"

    def owns(self, netns: str) -> bool:
        """Whether a namespace is one of this lab's: teardown asks this from a fresh process."""
        pattern = rf"{self.run_id}-(net|vc(-[a-z0-9]+)?|h\d+|p-[a-z0-9-]+)"
        return re.fullmatch(pattern, netns) is not None


def underlay_address(number: int) -> str:
    """Where host `number` is reached by the others."""
    return f"10.0.0.{number}"
