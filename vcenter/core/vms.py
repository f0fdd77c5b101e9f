"""Every VM of the domain, compactly, with the indexes that find them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Sequence
from itertools import chain, count
from operator import add

from common.model.identity import Claim
from common.model.vm import Location, VmRecord, VmState
from vcenter.core import packed
from vcenter.core.packed import Entry, Kind, Packed

_NONE: frozenset[str] = frozenset()


class Vms:
    """Rows by vm_id, and who is where. Strings of vm_ids are shared by all indexes.

    Members of a VNI are the holders of its claims, and a tenant's VMs those of its groups, so
    that neither needs an index of its own.
    """

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.kinds: dict[int, Kind] = {}  # numbers are never used again: caches may keep them
        self.servers: list[str] = []
        self._kind_numbers: dict[Kind, int] = {}
        self._of_kind: dict[int, list[int]] = {}  # how many VMs in each state, as in STATES
        self._server_numbers: dict[str, int] = {}
        self._numbers = count(1)
        self._operations: dict[str, str] = {}
        self._claims: dict[int, dict[int, str]] = {}
        self._owned: dict[str, set[str]] = {}
        self._groups: dict[str, dict[str, set[str]]] = {}
        self._hosts: dict[int, dict[str, int]] = {}  # VNI: how many VMs each host owns there

    # ---- reading ----

    def get(self, vm_id: str) -> VmRecord | None:
        row = self.rows.get(vm_id)
        if row is None:
            return None
        kind, server = packed.PLACE.unpack_from(row)
        operation_id = self._operations.get(vm_id, "")
        return packed.put_together(vm_id, self.kinds[kind], row, self.servers[server], operation_id)

    def entry_as(self, vm: Packed) -> Entry | None:
        """Where it is, if the VM that is there is just as this one; None also if that takes more
        than a glance to see."""
        row = self.rows.get(vm.vm_id)
        if row is None:
            return None
        kind, server, state, epoch, changed_ms, revision = packed.HEAD.unpack_from(row)
        if self.kinds[kind] is not vm.kind or not vm.is_of(row):
            return None
        location = Location(self.servers[server], packed.STATES[state], epoch)
        return Entry(location, changed_ms, self._operations.get(vm.vm_id, ""), revision)

    def revision_of(self, vm_id: str) -> int:
        row = self.rows.get(vm_id)
        return packed.revision_of(row) if row is not None else 0

    def holder(self, claim: Claim) -> str | None:
        return self.holder_at(claim.vni, packed.address_number(claim.address))

    def holder_at(self, vni: int, number: int) -> str | None:
        """Who holds the address of this number (`packed.address_number`)."""
        held = self._claims.get(vni)
        return held.get(number) if held is not None else None

    def touches(self, vm_id: str, addresses: Iterable[tuple[int, int]]) -> bool:
        """Whether it has the VM, or one that holds one of the addresses: (VNI, address number)."""
        if vm_id in self.rows:
            return True
        for vni, number in addresses:
            held = self._claims.get(vni)
            if held is not None and number in held:
                return True
        return False

    def place_of(self, vm_id: str) -> tuple[str, int]:
        """The vServer that owns it, and the epoch. Raises KeyError."""
        server, _, epoch = packed.where(self.rows[vm_id][packed.WHERE])
        return self.servers[server], epoch

    def vnis(self) -> KeysView[int]:
        """In which somebody has a claim."""
        return self._claims.keys()

    def owned_by(self, server_id: str) -> Collection[str]:
        return self._owned.get(server_id, _NONE)

    def in_group(self, tenant: str, group: str) -> Collection[str]:
        return self._groups.get(tenant, {}).get(group, _NONE)

    def of_tenant(self, tenant: str) -> Iterator[str]:
        return chain.from_iterable(self._groups.get(tenant, {}).values())

    def on_vni(self, vni: int) -> Collection[str]:
        return set(self._claims.get(vni, {}).values())

    def owners_on(self, vni: int) -> Collection[str]:
        return self._hosts.get(vni, {}).keys()

    def macs_on(self, vni: int) -> Iterator[tuple[str, str]]:
        """Every MAC of the VNI, and the vServer that owns its VM."""
        for number, vm_id in self._claims.get(vni, {}).items():
            mac = packed.mac_text(number)
            if mac is not None:
                _, server = packed.PLACE.unpack_from(self.rows[vm_id])
                yield mac, self.servers[server]

    def members(self, vni: int, tenant: str, network: str) -> Iterator[tuple[str, str]]:
        """As `macs_on`, of one tenant's network: another's may have the VNI in another domain."""
        for number, vm_id in self._claims.get(vni, {}).items():
            mac = packed.mac_text(number)
            if mac is not None:
                kind, server = packed.PLACE.unpack_from(self.rows[vm_id])
                found = self.kinds[kind]
                ports = ((port.network, port.vni) for port in found.ports)
                if found.tenant == tenant and (network, vni) in ports:
                    yield mac, self.servers[server]

    def states(self, wanted: Callable[[Kind], bool], server_id: str = "") -> dict[VmState, int]:
        """How many VMs of the wanted kinds are in each state, on one vServer or anywhere: from
        counts, or from the rows of that vServer."""
        found = [0] * len(packed.STATES)
        chosen = {number for number, kind in self.kinds.items() if wanted(kind)}
        if server_id:
            for row in map(self.rows.__getitem__, self.owned_by(server_id)):
                if packed.PLACE.unpack_from(row)[0] in chosen:
                    found[packed.state_number(row)] += 1
        else:
            for number in chosen:
                found = [*map(add, found, self._of_kind[number])]
        return dict(zip(packed.STATES, found, strict=True))

    # ---- writing ----

    def put(self, record: VmRecord, revision: int) -> None:
        """A VM that is not there."""
        location = record.location
        kind, addresses, name = packed.take_apart(record.vm)
        self.insert(
            record.vm.vm_id,
            self.number_of(kind),
            addresses,
            name,
            packed.claim_numbers(kind, addresses),
            location.server_id,
            location.state,
            location.epoch,
            record.changed_ms,
            revision,
        )
        if record.operation_id:
            self._operations[record.vm.vm_id] = record.operation_id

    def insert(
        self,
        vm_id: str,
        number: int,
        addresses: bytes,
        name: bytes,
        claims: Iterable[tuple[int, int]],
        server_id: str,
        state: VmState,
        epoch: int,
        changed_ms: int,
        revision: int,
    ) -> bytes:
        """A VM that is not there, of the kind of this number. Returns its row."""
        kind = self.kinds[number]
        self._of_kind[number][packed.STATE_NUMBERS[state]] += 1
        server = self.server_number(server_id)
        head = packed.head(number, server, state, epoch, changed_ms, revision)
        row = self.rows[vm_id] = head + addresses + name
        self._file(vm_id, kind, claims, self.servers[server])
        return row

    def fill(
        self, number: int, server: int, state: int, vm_ids: Sequence[str], rows: Sequence[bytes]
    ) -> None:
        """VMs that are not there, of one kind, on one vServer and in one state (its number), as the
        rows that they will be."""
        kind, server_id = self.kinds[number], self.servers[server]
        self._of_kind[number][state] += len(rows)
        self.rows.update(zip(vm_ids, rows, strict=True))
        read, skip = int.from_bytes, packed.HEAD.size
        for vni, at, end, mark in kind.claims:
            where = slice(skip + at, skip + end)
            numbers = [read(row[where], "big") | mark for row in rows]
            self._claims.setdefault(vni, {}).update(zip(numbers, vm_ids, strict=True))
        self._owned.setdefault(server_id, set()).update(vm_ids)
        self._groups.setdefault(kind.tenant, {}).setdefault(kind.group, set()).update(vm_ids)
        for vni in _vnis(kind):
            hosts = self._hosts.setdefault(vni, {})
            hosts[server_id] = hosts.get(server_id, 0) + len(vm_ids)

    def remove(self, vm_id: str) -> None:
        row = self.rows.pop(vm_id)
        number, server = packed.PLACE.unpack_from(row)
        kind = self.kinds[number]
        self._unfile(vm_id, kind, row[packed.HEAD.size : kind.name_at()], self.servers[server])
        self._operations.pop(vm_id, None)
        self._release(number, kind, packed.state_number(row))

    def server_number(self, server_id: str) -> int:
        """The vServer's, in rows; never another's."""
        server = self._server_numbers.get(server_id)
        if server is None:
            server = self._server_numbers[server_id] = len(self.servers)
            self.servers.append(server_id)
        return server

    def number_of(self, kind: Kind) -> int:
        """For `insert`, at once: a kind that nobody is of is forgotten with the next that goes."""
        number = self._kind_numbers.get(kind)
        if number is None:
            number = self._kind_numbers[kind] = next(self._numbers)
            self.kinds[number] = kind
            self._of_kind[number] = [0] * len(packed.STATES)
        return number

    def _release(self, number: int, kind: Kind, state: int) -> None:
        self._of_kind[number][state] -= 1
        if not any(self._of_kind[number]):
            del self.kinds[number], self._of_kind[number], self._kind_numbers[kind]

    def _file(
        self, vm_id: str, kind: Kind, claims: Iterable[tuple[int, int]], server_id: str
    ) -> None:
        for vni, number in claims:
            held = self._claims.get(vni)
            if held is None:
                held = self._claims[vni] = {}
            held[number] = vm_id
        owned = self._owned.get(server_id)
        if owned is None:
            owned = self._owned[server_id] = set()
        owned.add(vm_id)
        groups = self._groups.get(kind.tenant)
        if groups is None:
            groups = self._groups[kind.tenant] = {}
        members = groups.get(kind.group)
        if members is None:
            members = groups[kind.group] = set()
        members.add(vm_id)
        for vni in _vnis(kind):
            hosts = self._hosts.get(vni)
            if hosts is None:
                hosts = self._hosts[vni] = {}
            hosts[server_id] = hosts.get(server_id, 0) + 1

    def _unfile(self, vm_id: str, kind: Kind, addresses: bytes, server_id: str) -> None:
        for vni, number in packed.claim_numbers(kind, addresses):
            held = self._claims.get(vni, {})
            if held.get(number) == vm_id:
                del held[number]
                if not held:
                    del self._claims[vni]
        _discard(self._owned, server_id, vm_id)
        groups = self._groups[kind.tenant]
        _discard(groups, kind.group, vm_id)
        if not groups:
            del self._groups[kind.tenant]
        for vni in _vnis(kind):
            hosts = self._hosts[vni]
            hosts[server_id] -= 1
            if not hosts[server_id]:
                del hosts[server_id]
            if not hosts:
                del self._hosts[vni]


def _vnis(kind: Kind) -> Collection[int]:
    if len(kind.ports) == 1:  # nearly always
        return (kind.ports[0].vni,) if kind.ports[0].vni else ()
    return {port.vni for port in kind.ports if port.vni}


def _discard(index: dict[str, set[str]], key: str, vm_id: str) -> None:
    filed = index[key]
    filed.discard(vm_id)
    if not filed:
        del index[key]
