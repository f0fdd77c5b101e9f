"""What libvirt tells of by itself, carried over into asyncio's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any

import libvirt


class What(Enum):
    """Which kind of change; only a copy under way cares."""

    ANY = auto()
    STOPPED_FOR_SWITCH = auto()  # a copy's source: its CPUs have stopped for good, or nearly


def subscribe(
    conn: Any,
    loop: asyncio.AbstractEventLoop,
    on_event: Callable[[str, What], None],
    on_copied: Callable[[str, Mapping[str, Any]], None],
    on_lost: Callable[[], None],
) -> None:
    """Ask for everything that may change what `list` says, for copies' last figures, and for the
    connection's end."""

    def changed(_conn: Any, domain: Any, *details: Any) -> None:
        _post(loop, partial(on_event, domain.UUIDString(), What.ANY))

    def lifecycle(_conn: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        switching = (
            libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
            libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
        )
        what = What.STOPPED_FOR_SWITCH if (event, detail) == switching else What.ANY
        _post(loop, partial(on_event, domain.UUIDString(), what))

    def copied(_conn: Any, domain: Any, stats: Mapping[str, Any], _opaque: Any) -> None:
        if stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
            _post(loop, partial(on_copied, domain.UUIDString(), stats))

    def lost(_conn: Any, _reason: int, _opaque: Any) -> None:
        _post(loop, on_lost)

    conn.registerCloseCallback(lost, None)
    callbacks = {
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lifecycle,
        libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: changed,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: changed,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: changed,
        libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: copied,
    }
    conn.vsignal_callbacks = [
        conn.domainEventRegisterAny(None, event, callback, None)
        for event, callback in callbacks.items()
    ]


def unsubscribe_and_close(conn: Any) -> None:
    """The connection's memory is held by its callbacks until they are taken back."""
    for callback in getattr(conn, "vsignal_callbacks", ()):
        with suppress(libvirt.libvirtError):
            conn.domainEventDeregisterAny(callback)
    for release in (conn.unregisterCloseCallback, conn.close):
        with suppress(libvirt.libvirtError):
            release()


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """The loop may have ended before the last event; then nobody waits for it."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
