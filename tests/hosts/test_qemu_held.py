"""A guest of a `qemu` host that is held at its source, on real hosts: the vCenter stands still at
the switch, and whatever dies meanwhile, the guest is there afterwards, with its memory."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from common.pb.vsignal.v1 import operations_pb2
from deploy.lab import Guest, Lab, Probe
from deploy.lab.qemu_guest import QemuGuest
from tests.hosts.product import Product
from tests.hosts.profiles import web_holds
from vserver.hypervisor.qemu.monitor import at_hand

SENT = "postmigrate"  # QEMU's word
SLOWLY, FREELY = 8 << 20, 1 << 40  # bytes a second


@pytest.fixture(scope="module")
def lab(hosts_available: None) -> Iterator[Lab]:
    with Lab(hosts=3, hypervisor="qemu") as running:
        yield running


@pytest.mark.parametrize("to", [2, 1], ids=["there", "back"])
def test_a_move_is_held_and_its_receipt_is_whole(product: Product, mover: Guest, to: int) -> None:
    product.wait_registered(mover, on=3 - to)
    operation = product.relocate(mover, to)
    done = product.wait_done(operation)
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done.failure
    assert done.gated and done.held
    product.until("its figures are told", lambda: product.operation(operation).receipt.bytes)
    receipt = product.operation(operation).receipt
    assert receipt.bytes > 1_000_000 and receipt.downtime_ms > 0
    product.wait_agreement()


@pytest.mark.parametrize("restarted", [(), (1,), (2,), (1, 2)], ids=str)
def test_a_destination_that_dies_while_the_source_is_held_gives_the_guest_back(
    product: Product, mover: Guest, probe: Probe, restarted: tuple[int, ...]
) -> None:
    """Whichever agents die, too."""
    assert isinstance(mover, QemuGuest)
    before, pid = product.wait_registered(mover, on=1).record, mover.pid
    there = mover.on(product.lab.host(2))
    operation = _copying(product, mover)
    with product.silent():
        _sent(product, mover)
        os.kill(there.pid, signal.SIGKILL)
        _restart(product, restarted)
        assert mover.state() == SENT
    done = product.wait_done(operation)
    assert done.phase == operations_pb2.PHASE_FAILED and done.held, done
    assert done.epoch_after == before.location.epoch + 2
    product.wait_registered(mover, on=1)
    assert mover.pid == pid
    assert mover.console("cat /tmp/note") == "remembered"
    web_holds(probe, mover)
    product.wait_agreement()


def test_what_was_held_goes_on_when_all_agents_have_died(
    product: Product, mover: Guest, probe: Probe
) -> None:
    assert isinstance(mover, QemuGuest)
    before = product.wait_registered(mover, on=1).record
    there = mover.on(product.lab.host(2))
    operation = _copying(product, mover)
    with product.silent():
        _sent(product, mover)
        _restart(product, (1, 2))
        assert (mover.state(), there.state()) == (SENT, "paused")
    done = product.wait_done(operation)
    assert done.phase == operations_pb2.PHASE_SUCCEEDED and done.held, done
    assert done.epoch_after == before.location.epoch + 1
    product.wait_registered(there, on=2)
    assert there.console("cat /tmp/note") == "remembered"
    web_holds(probe, there)
    product.wait_agreement()


def _copying(product: Product, mover: QemuGuest) -> str:
    asyncio.run(_limit(mover, SLOWLY))
    operation = product.relocate(mover, to=2)
    product.wait_copying(operation)
    return operation


def _sent(product: Product, mover: QemuGuest) -> None:
    asyncio.run(_limit(mover, FREELY))
    product.until("the guest stands still, all sent", lambda: mover.state() == SENT)
    there = mover.on(product.lab.host(2))
    product.until("all has arrived", lambda: there.state() == "paused")


async def _limit(mover: QemuGuest, bytes_per_second: int) -> None:
    async with at_hand(mover.home.file("hand"), mover.spec.uuid) as monitor:
        await monitor.execute("migrate-set-parameters", max_bandwidth=bytes_per_second)


def _restart(product: Product, agents: tuple[int, ...]) -> None:
    for number in agents:
        product.agents[number].kill9()
        product.agents[number].start()
