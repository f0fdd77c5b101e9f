"""From the store's snapshot into the table, quickly: a start with a million VMs takes seconds.

VMs are taken apart by the page (`splitting`), here while there are few, and in processes beside
this one (`helpers`) when they turn out to be many; rows they become here, where the table is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

import structlog

from vcenter.core import packed
from vcenter.core.table import Change, Table
from vcenter.ledger.encoded import kind_of
from vcenter.ledger.helpers import helping
from vcenter.ledger.records import decode
from vcenter.ledger.splitting import Home, Page, Splitter, Stored
from vcenter.store.port import Record

log = structlog.get_logger()

FEW = 50_000  # records that are read before helpers are worth their start

_Rows = tuple[list[str], list[bytes]]  # of one kind and vServer: ids, and rows beside them


class Loader:
    """Fills one table: `add` what there is, then `finish`. Raises `records.Unreadable`.

    VMs become rows at once, and are filed at the end, all of one kind and vServer together.
    `in_full`: how many records were read field by field; the others are like one that was.
    """

    def __init__(self, table: Table) -> None:
        self.in_full = 0
        self._table = table
        self._splitter = Splitter()
        self._rows: dict[tuple[int, int], _Rows] = {}

    def add(self, records: Iterable[Stored]) -> None:
        self.merge(self._splitter.split(records))

    def merge(self, page: Page) -> None:
        """What was taken apart anywhere."""
        homes = [self._home(home) for home in page.homes]
        for which, vm_id, tail in zip(page.which, page.vm_ids, page.tails, strict=True):
            head, vm_ids, rows = homes[which]
            vm_ids.append(vm_id)
            rows.append(head + tail)
        self.in_full += len(page.rest)
        for key, value, revision in page.rest:
            self._table.apply(revision, [Change(key, decode(key, value))])

    def finish(self) -> None:
        while self._rows:
            (number, server), (vm_ids, rows) = self._rows.popitem()
            self._table.vms.fill(number, server, vm_ids, rows)

    def _home(self, home: Home) -> tuple[bytes, list[str], list[bytes]]:
        """The first part of the rows, and where they are gathered."""
        shape, (server_id, state, epoch) = home
        kind = kind_of(shape)
        assert kind is not None, "whoever took it apart has looked"
        vms = self._table.vms
        number, server = vms.number_of(kind), vms.server_number(server_id)
        head = packed.NUMBER.pack(number) + packed.where_bytes(server, packed.STATES[state], epoch)
        return head, *self._rows.setdefault((number, server), ([], []))


async def load(table: Table, snapshot: AsyncIterator[Sequence[Record]], few: int = FEW) -> None:
    """Fill the table; beyond `few` records with helpers. Raises `records.Unreadable`."""
    loader, many = Loader(table), 0
    async with helping(loader.merge) as helpers:
        async for records in snapshot:
            if many < few:
                loader.add(records)
            else:
                await helpers.take(records)
            many += len(records)
    loader.finish()
    log.debug("ledger read", records=many, in_full=loader.in_full)
