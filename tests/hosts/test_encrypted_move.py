"""What the underlay sees of a guest's memory while it moves: nothing, unless asked for by hand."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.lab import Guest, Lab, shell
from tests.hosts.product import Product, spec

SECRET = spec("secret", 21)
MARK = b"vsignal-marks-this-memory-"
MIB = 1 << 20


@pytest.fixture(scope="module")
def product(lab: Lab) -> Iterator[Product]:
    running = Product(lab, encrypt=True)
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="module")
def guest(product: Product) -> Guest:
    """Some megabytes of its memory are full of the mark."""
    (guest,) = product.start((SECRET, 1))
    words = f"yes {MARK.decode()} | head -c 4000000 > /marked; wc -c < /marked"
    assert "4000000" in guest.console(words, timeout=60)
    return guest


@contextmanager
def captured(lab: Lab, file: Path) -> Iterator[None]:
    """Every frame between the two hosts, as somebody on the underlay takes it."""
    words = ["tcpdump", "-i", "h1", "-s", "0", "-B", "65536", "-U", "-w", str(file)]
    with (file.parent / "tcpdump.log").open("w+") as said:
        process = subprocess.Popen(
            shell.inside(lab.names.underlay, words), stdout=said, stderr=said
        )
        try:
            deadline = time.monotonic() + 10
            while not file.exists() or not file.stat().st_size:  # its header, once it listens
                assert time.monotonic() < deadline, said.read()
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.timeout(240)
def test_no_memory_is_seen_on_the_underlay(product: Product, guest: Guest, tmp_path: Path) -> None:
    lab = product.lab
    with captured(lab, tmp_path / "ours.pcap"):
        moved = product.wait_done(product.relocate(guest, 2), timeout=90)
        assert not moved.failure.reason, moved.failure.message
    ours = (tmp_path / "ours.pcap").read_bytes()
    assert len(ours) > 20 * MIB, "the copy was not captured"
    assert MARK not in ours
    here = guest.on(lab.host(2))
    product.wait_registered(here, on=2)
    assert "4000000" in here.console("wc -c < /marked")
    with captured(lab, tmp_path / "plain.pcap"):  # the same by hand, in clear: the mark can be seen
        here.migrate(lab.host(1), "--persistent", "--undefinesource")
    assert (tmp_path / "plain.pcap").read_bytes().count(MARK) > 1000


@pytest.mark.timeout(240)
def test_a_host_without_the_right_certificate_gets_no_memory(
    product: Product, guest: Guest
) -> None:
    """Whoever took the destination's address has some other host's certificate."""
    product.wait_registered(guest.on(product.lab.host(1)), on=1)
    pki = product.lab.host(2).libvirtd.pki
    right = {file: file.read_bytes() for file in pki.glob("server-*.pem")}
    for file in right:
        file.write_bytes((product.lab.host(1).libvirtd.pki / file.name).read_bytes())
    try:
        ended = product.wait_done(product.relocate(guest, 2), timeout=90)
        assert ended.failure.reason == "COPY_FAILED", ended
    finally:
        for file, content in right.items():
            file.write_bytes(content)
    product.wait_registered(guest.on(product.lab.host(1)), on=1)
    product.wait_agreement(30)
