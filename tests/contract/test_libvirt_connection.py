"""The connection to a libvirtd that goes and returns (a real one; the time stands still)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.errors import Refusal
from tests.support.held import HandClock

pytestmark = pytest.mark.timeout(180)


def _version(conn: Any) -> int:
    return int(conn.getLibVersion())


async def test_a_call_finds_the_libvirtd_that_has_returned() -> None:
    """The keeper's pauses never end here: only being wanted makes it try."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    from tests.contract.hypervisor_libvirt import lab_or_skip
    from vserver.hypervisor.libvirt.connection import Connection

    with lab_or_skip() as lab:
        host = lab.host(1)
        connection = Connection(host.libvirt_uri, HandClock(), lambda *_: None, lambda *_: None)
        await connection.open()
        try:
            before = await connection.call(_version)
            await asyncio.to_thread(host.kill9_libvirtd)
            for _ in range(2):
                with pytest.raises((Refusal, TimeoutError)):
                    await connection.call(_version)
            await asyncio.to_thread(host.start_libvirtd)
            assert await connection.call(_version) == before
        finally:
            await connection.close()
