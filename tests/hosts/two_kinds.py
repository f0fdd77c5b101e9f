"""Two hosts whose copies are encrypted, with libvirt and then with QEMU alone."""

from collections.abc import Iterator

import pytest

from deploy.lab import Lab
from tests.hosts.product import Product


@pytest.fixture(scope="module", params=["libvirt", "qemu"])
def lab(hosts_available: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(hosts=2, hypervisor=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def product(lab: Lab) -> Iterator[Product]:
    running = Product(lab, encrypt=True)
    running.up()
    yield running
    running.down()
