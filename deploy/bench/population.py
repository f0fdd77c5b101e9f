"""A domain full of VMs, the same one for the same number: in memory, on the wire, in a database.

A VM has one interface with a MAC and an IPv4 address, hence two claims; 1,000 share a virtual
network and 1,000 a vServer. Identities are random, as hypervisors make them.
"""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from common.model.profile import Acl, AclRule, Action, Capability, Direction, Profile
from common.model.server import Group, Server, Tenant, VirtualNetwork
from common.model.vm import Resources
from common.pb.vsignal.v1 import types_pb2 as pb
from vcenter.core import keys
from vcenter.core.keys import Ledgered
from vcenter.ledger.records import encode
from vcenter.store.sqlite import file, schema

TENANTS = 20
SHARED = 1_000  # VMs on one network, and on one vServer
NOW_S = 1_700_000_000
CAPABILITIES = frozenset({Capability.ACL, Capability.RATE, Capability.ANTI_SPOOFING})
RULE = AclRule(Action.PERMIT, Direction.INGRESS, "web", protocol=6)


@dataclass(frozen=True)
class Guest:
    """One VM's names and addresses."""

    number: int
    vm_id: str
    network: int
    server: int

    @property
    def mac(self) -> str:
        n = self.number
        return f"52:54:{n >> 24 & 255:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"

    @property
    def ip(self) -> str:
        n = self.number
        return f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"

    @property
    def vni(self) -> int:
        return 1_000 + self.network

    def fill(self, vm: pb.Vm) -> None:
        vm.vm_id = self.vm_id
        vm.name = f"vm-{self.number:07}"
        vm.tenant = tenant_of(self.network)
        vm.group = "web"
        if not vm.interfaces:
            vm.interfaces.add().ips.append("")
        nic = vm.interfaces[0]
        nic.mac, nic.ips[0], nic.network, nic.vni = self.mac, self.ip, net(self.network), self.vni
        vm.resources.vcpus, vm.resources.memory_mib = 2, 2048


def tenant_of(network: int) -> str:
    return f"tenant-{network % TENANTS:02}"


def net(network: int) -> str:
    return f"net-{network:05}"


def server_id(number: int) -> str:
    return f"host-{number:04}"


class Population:
    """`count` VMs and what they need. `guests()` gives the same ones every time."""

    def __init__(self, count: int, spread: int = SHARED) -> None:
        self.count = count
        self.networks = max(1, count // spread)
        self.servers = max(2, count // spread)

    def guests(self) -> Iterator[Guest]:
        rng = random.Random(7)
        for n in range(self.count):
            h = f"{rng.getrandbits(128):032x}"
            vm_id = f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
            yield Guest(n, vm_id, n % self.networks, n * 7 % self.servers)

    def sample(self, size: int) -> list[Guest]:
        step = max(1, self.count // size)
        return list(islice(self.guests(), 0, None, step))[:size]

    def declared(self) -> Iterator[tuple[str, Ledgered]]:
        """Tenants, networks, groups, vServers."""
        profile = Profile(acl=Acl((RULE,), default_ingress=Action.DENY))
        for n in range(TENANTS):
            name = tenant_of(n)
            yield keys.tenant(name), Tenant(name)
            yield keys.group(name, "web"), Group(name, "web", profile)
        for n in range(self.networks):
            network = VirtualNetwork(net(n), tenant_of(n), (1_000 + n,))
            yield keys.network(network.network_id), network
        for n in range(self.servers):
            yield keys.server(server_id(n)), server(n)

    def rows(self) -> Iterator[tuple[str, bytes, int]]:
        """As the store keeps them: key, value, revision."""
        declared = list(self.declared())
        for number, (key, record) in enumerate(declared, 1):
            value = encode(record)
            assert value is not None
            yield key, value, number
        wire = pb.VmRecord()
        wire.location.state, wire.location.epoch = pb.VM_STATE_RUNNING, 1
        wire.changed_at.seconds = NOW_S
        for number, guest in enumerate(self.guests(), len(declared) + 1):
            guest.fill(wire.vm)
            wire.location.server_id = server_id(guest.server)
            yield keys.vm(guest.vm_id), wire.SerializeToString(deterministic=True), number

    def write(self, path: Path) -> None:
        """A database as a vCenter would leave it after its history was compacted."""
        file.prepare(path)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA synchronous = OFF")
            db.executemany("INSERT INTO current VALUES (?, ?, ?)", self.rows())
            (last,) = db.execute("SELECT max(revision) FROM current").fetchone()
            db.execute(schema.SET_COMPACTED, (last, NOW_S * 1000))
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def server(number: int) -> Server:
    high, low = divmod(number, 250)
    return Server(
        server_id(number),
        server_id(number),
        management_address=f"192.0.{high}.{low + 1}",
        vtep_address=f"198.18.{high}.{low + 1}",
        capacity=Resources(4096, 1 << 24),
        hypervisor="memory",
        capabilities=CAPABILITIES,
    )
