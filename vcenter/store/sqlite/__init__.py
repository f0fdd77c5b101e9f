"""The embedded store: one SQLite file, in WAL mode, flushed to disk on every group."""

from vcenter.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
