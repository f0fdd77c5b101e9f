"""Every test of the draft's sections gets a real vCenter, on each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.lab import STORES, Lab, running_lab
from tests.support.moving import Move


@pytest.fixture(params=STORES)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with running_lab(request.param) as lab:
        yield lab


@pytest.fixture
async def move(lab: Lab) -> Move:
    """VM 1 on host-1, and a host-2 that it can move to."""
    return await Move.ready(lab)
