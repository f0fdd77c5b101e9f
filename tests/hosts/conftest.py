"""Real hosts for tests: a laptop lab, or the reason why there is none."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab import Guest, Lab, Probe
from deploy.lab.available import why_unavailable
from tests.hosts.product import MOVER, Product
from tests.hosts.profiles import web


@pytest.fixture(scope="session")
def hosts_available() -> None:
    """Skip where no lab can run; in CI fail, lest a green run means that nothing ran."""
    if reason := why_unavailable():
        if os.environ.get("CI"):
            pytest.fail(f"no real hosts in CI: {reason}")
        pytest.skip(f"no real hosts: {reason}")


@pytest.fixture(scope="module")
def hosts() -> int:
    """How many a file's lab has; a file that needs more says so."""
    return 2


@pytest.fixture(scope="module")
def lab(hosts_available: None, hosts: int) -> Iterator[Lab]:
    """A lab shared by the tests of one file."""
    with Lab(hosts=hosts) as running:
        yield running


@pytest.fixture(scope="module")
def settings() -> dict[int, str]:
    """What a file adds to the configuration of its agents, by the host's number."""
    return {}


@pytest.fixture(scope="module")
def product(lab: Lab, settings: dict[int, str]) -> Iterator[Product]:
    """A vCenter and an agent on every host, shared by the tests of one file."""
    running = Product(lab, settings)
    try:
        running.up()
    except Exception as error:
        error.add_note(running.logs())
        raise
    yield running
    running.down()


@pytest.fixture(scope="module")
def mover(product: Product) -> Guest:
    """The VM that a file's tests move about; it starts on h1, and has something to remember."""
    product.put_group("web", web())
    (guest,) = product.start((MOVER, 1))
    guest.console("echo remembered > /tmp/note")
    return guest


@pytest.fixture(scope="module")
def probe(product: Product, mover: Guest) -> Probe:
    """On the third host, which the VM never visits."""
    return product.probe(9, on=3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failure shows what the daemons said."""
    report: pytest.TestReport = yield
    product = getattr(item, "funcargs", {}).get("product")
    if report.failed and isinstance(product, Product):
        report.sections.append(("the daemons' logs", product.logs()))
    return report
