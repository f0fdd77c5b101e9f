"""Several vCenters over one ledger in a real etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from tests.support.lab import Lab
from vcenter.store.etcd import EtcdStore, parse_address


@asynccontextmanager
async def replicas(
    folder: Path, address: str, names: str = "ab", **settings: Any
) -> AsyncIterator[list[Lab]]:
    """Labs whose vCenters share what is at the address; tenants and networks are declared."""
    async with AsyncExitStack() as stack:
        labs = []
        for name in names:
            place = folder / name
            place.mkdir(parents=True)
            clock = SystemClock()
            store = EtcdStore(parse_address(address), clock, name)
            lab = Lab(place, store, clock, **{"lease_seconds": 2.0} | settings)
            await lab.start()
            stack.push_async_callback(lab.stop)
            labs.append(lab)
        for lab in labs:
            await lab.declare()
        yield labs
