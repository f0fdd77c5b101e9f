"""What tests of `qemu` alone stand on: two of its hosts, in a namespace of the module's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.hypervisor_qemu import QemuBench, namespace, qemu_bench


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    with namespace() as name:
        yield name


@pytest.fixture
async def bench(netns: str) -> AsyncIterator[QemuBench]:
    async with qemu_bench(netns) as running:
        yield running
