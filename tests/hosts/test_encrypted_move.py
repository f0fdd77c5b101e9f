"""What the underlay sees of a guest's memory and disk while it moves: nothing, unless asked for by
hand."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.lab import Guest, Host, Lab, shell
from tests.hosts.disks import moved, with_a_disk
from tests.hosts.product import Product
from tests.hosts.two_kinds import lab, product

__all__ = ["lab", "product"]  # fixtures

MARK = b"vsignal-marks-this-memory-"
MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(product: Product) -> Guest:
    """Some megabytes of its memory, and of its disk, are full of the mark."""
    (guest,) = product.start((with_a_disk("secret", 21, product.lab.host(1)), 1))
    words = f"yes {MARK.decode()} | head -c 4000000 > /marked; wc -c < /marked"
    assert "4000000" in guest.console(words, timeout=60)
    guest.console("dd if=/marked of=/dev/vda bs=1M 2>/dev/null; sync", timeout=60)
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


def moved_captured(product: Product, guest: Guest, to: int, file: Path) -> bytes:
    """Move it, and return what the underlay saw."""
    with captured(product.lab, file):
        ended = moved(product, guest, to, least=4_000_000)
        assert not ended.failure.reason, ended.failure.message
    product.wait_registered(guest.on(product.lab.host(to)), on=to)
    seen = file.read_bytes()
    assert len(seen) > 20 * MIB, "the copy was not captured"
    return seen


def pki_of(host: Host) -> Path:
    """Where QEMU reads the host's certificate."""
    return host.libvirtd.pki if host.hypervisor == "libvirt" else host.work / "agent-state/pki"


@pytest.mark.timeout(240)
def test_a_host_without_the_right_certificate_gets_no_memory(
    product: Product, guest: Guest
) -> None:
    """Whoever took the destination's address has some other host's certificate."""
    wrong, pki = (pki_of(product.lab.host(number)) for number in (1, 2))
    right = {file: file.read_bytes() for file in pki.glob("server-*.pem")}
    for file in right:
        file.write_bytes((wrong / file.name).read_bytes())
    try:
        ended = moved(product, guest, 2, least=4_000_000)
        assert ended.failure.reason == "COPY_FAILED", ended
    finally:
        for file, content in right.items():
            file.write_bytes(content)
    product.wait_registered(guest, on=1)
    product.wait_agreement(30)


@pytest.mark.timeout(240)
def test_no_memory_is_seen_on_the_underlay(product: Product, guest: Guest, tmp_path: Path) -> None:
    assert MARK not in moved_captured(product, guest, 2, tmp_path / "encrypted.pcap")
    here = guest.on(product.lab.host(2))
    assert "4000000" in here.console("wc -c < /marked")
    product.restart_agents(encrypt=False)  # what the mark looks like where it can be seen
    assert moved_captured(product, here, 1, tmp_path / "clear.pcap").count(MARK) > 1000
