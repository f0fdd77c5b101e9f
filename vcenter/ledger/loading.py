"""From the store's snapshot into the table, quickly: a start with a million VMs takes seconds.

VMs are read and taken apart by the piece (`splitting`), here if they are few, in processes beside
this one (`helpers`) if they are many; rows they become here, where the table is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import lru_cache

import structlog

from vcenter.core import packed
from vcenter.core.table import Change, Table
from vcenter.ledger.encoded import LIKE, kind_of
from vcenter.ledger.helpers import helping
from vcenter.ledger.records import decode
from vcenter.ledger.splitting import Home, Page, Splitter
from vcenter.store.port import Piece, Stored

log = structlog.get_logger()

FEW = 50_000  # records, for which helpers are not worth their start

_Rows = tuple[list[str], list[bytes]]  # of one kind, vServer and state: ids, and rows beside them


class Loader:
    """Fills one table: `add` what there is, then `finish`. Raises `records.Unreadable`.

    VMs become rows at once, and are filed at the end, all that are alike together.
    `in_full`: how many records were read field by field; the others are like one that was.
    """

    def __init__(self, table: Table) -> None:
        self.in_full = 0
        self._table = table
        self._splitter = Splitter()
        self._rows: dict[tuple[int, int, int], _Rows] = {}
        self._home = lru_cache(LIKE)(self._new_home)  # of which most occur in every piece

    def add(self, records: Iterable[Stored]) -> None:
        self.merge(self._splitter.split(records))

    def merge(self, page: Page) -> None:
        """What was taken apart anywhere."""
        homes = [*map(self._home, page.homes)]
        for which, vm_id, tail in zip(page.which, page.vm_ids, page.tails, strict=True):
            head, vm_ids, rows = homes[which]
            vm_ids.append(vm_id)
            rows.append(head + tail)
        self.in_full += len(page.rest)
        for key, value, revision in page.rest:
            self._table.apply(revision, [Change(key, decode(key, value))])

    def finish(self) -> None:
        self._home.cache_clear()  # nobody else is to hold what was gathered: it goes as it is filed
        while self._rows:
            (number, server, state), (vm_ids, rows) = self._rows.popitem()
            self._table.vms.fill(number, server, state, vm_ids, rows)

    def _new_home(self, home: Home) -> tuple[bytes, list[str], list[bytes]]:
        """The first part of the rows, and where they are gathered."""
        shape, (server_id, state, epoch) = home
        kind = kind_of(shape)
        assert kind is not None, "whoever took it apart has looked"
        vms = self._table.vms
        number, server = vms.number_of(kind), vms.server_number(server_id)
        head = packed.NUMBER.pack(number) + packed.where_bytes(server, packed.STATES[state], epoch)
        return head, *self._rows.setdefault((number, server, state), ([], []))


async def load(table: Table, pieces: AsyncIterator[Piece], few: int = FEW) -> None:
    """Fill the table; with helpers if there are more than `few` records. Raises
    `records.Unreadable`, `StoreUnusable`."""
    loader, first, many = Loader(table), [], 0
    async for piece in pieces:
        first.append(piece)
        many += piece.most
        if many > few:
            break
    if many <= few:
        for piece in first:
            loader.add(piece.read())
    else:
        async with helping(loader.merge) as helpers:
            for piece in first:
                await helpers.take(piece.read)
            async for piece in pieces:
                await helpers.take(piece.read)
    loader.finish()
    log.debug("ledger read", most=many, in_full=loader.in_full)
