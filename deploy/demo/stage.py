"""Where the story plays: real hosts and guests, or the memory adaptors. The story is the same."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from common.pb.vsignal.v1 import types_pb2
from common.tls import Bundle


@dataclass(frozen=True)
class Actor:
    """One guest of the story. `host` counts from 1."""

    name: str
    vm_id: str
    mac: str
    ip: str
    tenant: str
    network: str
    vni: int
    host: int
    group: str = ""
    disk: str = ""  # its size, as qemu-img takes it; "": none

    def by_id(self) -> types_pb2.VmKey:
        return types_pb2.VmKey(vm_id=self.vm_id)

    def by_mac(self) -> types_pb2.VmKey:
        return types_pb2.VmKey(mac=types_pb2.VmKey.MacKey(vni=self.vni, mac=self.mac))

    def by_ip(self) -> types_pb2.VmKey:
        return types_pb2.VmKey(ip=types_pb2.VmKey.IpKey(vni=self.vni, ip=self.ip))


@dataclass
class Gap:
    """Filled in when the measurement ends: the longest time without a reply, in ms."""

    longest_ms: float = 0.0
    sent: int = 0
    lost: int = 0


class Stage(Protocol):
    """What the story needs of its place."""

    hypervisor: str
    target: str  # the vCenter, for gRPC

    @property
    def operator(self) -> Bundle:
        """The operator's certificate; there from `up` on."""
        ...

    def up(self) -> None:
        """Hosts, the vCenter, an agent on each host."""
        ...

    def down(self) -> None: ...

    def start_guest(self, actor: Actor) -> None:
        """As anyone would with virsh; our daemons are not told."""
        ...

    def wait_guests(self) -> None:
        """Until the guests have booted."""
        ...

    def listens(self, actor: Actor, port: int) -> bool:
        """Whether something inside the guest accepts on the port, policy aside."""
        ...

    def place_probe(self, vni: int, address: str, host: int) -> None:
        """A tenant's endpoint on a host, from which the network is measured."""
        ...

    def ping(self, ip: str) -> bool: ...

    def tcp(self, ip: str, port: int) -> bool: ...

    def pinging(self, ip: str, every_ms: float) -> AbstractContextManager[Gap]:
        """Ping from the probe for as long as the block lasts."""
        ...

    def try_next(self, mover: Actor) -> list[str]:
        """Command lines that work while the stage stays up."""
        ...
