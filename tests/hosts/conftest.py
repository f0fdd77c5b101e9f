"""Real hosts for tests: a laptop lab, or the reason why there is none."""

import os
from collections.abc import Iterator

import pytest

from deploy.lab import Lab
from deploy.lab.available import why_unavailable


@pytest.fixture(scope="session")
def hosts_available() -> None:
    """Skip where no lab can run; in CI fail, lest a green run means that nothing ran."""
    if reason := why_unavailable():
        if os.environ.get("CI"):
            pytest.fail(f"no real hosts in CI: {reason}")
        pytest.skip(f"no real hosts: {reason}")


@pytest.fixture(scope="module")
def lab(hosts_available: None) -> Iterator[Lab]:
    """A lab of two hosts, shared by the tests of one file."""
    with Lab(hosts=2) as running:
        yield running
