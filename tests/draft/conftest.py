"""Every test of the draft's sections gets a real vCenter, on each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.lab import STORES, Lab, running_lab


@pytest.fixture(params=STORES)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with running_lab(request.param) as lab:
        yield lab
