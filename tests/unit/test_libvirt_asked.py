"""When it is certain that a copy, which an agent before us asked libvirt for, does not come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.errors import Reason, Refusal
from tests.support.held import HandClock

pytest.importorskip("libvirt", reason="libvirt-python is not installed")
from vserver.hypervisor.libvirt.asked import ENDS_WITHIN, LOOKS, Asked
from vserver.hypervisor.libvirt.changing import Leaving

VM = "3f0c7a52-0000-4000-8000-000000000001"
STAYS, LEAVES, GONE = Leaving.STAYS, Leaving.LEAVES, Leaving.GONE


class Libvirt:
    """Says one thing after the other, the last one for ever."""

    def __init__(self, *says: Leaving) -> None:
        self.says = list(says)
        self.told: list[bool] = []

    async def look(self, vm_id: str, tell: bool) -> Leaving:
        self.told.append(tell)
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]


def noted(notes: Path) -> bool:
    return any(notes.iterdir())


async def stopped(asked: Asked, clock: HandClock) -> None:
    stopping = asyncio.ensure_future(asked.stop(VM))
    while not stopping.done():
        await asyncio.sleep(0.001)
        await clock.turn(0.5)
    await stopping


async def of_an_agent_before(notes: Path, libvirt: Libvirt, clock: HandClock) -> Asked:
    await Asked(libvirt.look, clock, notes).begins(VM)
    next_one = Asked(libvirt.look, clock, notes)
    await next_one.load()
    return next_one


async def test_what_nobody_asked_for_is_looked_for_once(tmp_path: Path) -> None:
    libvirt, clock = Libvirt(STAYS), HandClock()
    await stopped(Asked(libvirt.look, clock, tmp_path), clock)
    assert len(libvirt.told) == 1


async def test_what_was_asked_for_is_looked_for_until_it_cannot_come(tmp_path: Path) -> None:
    libvirt, clock = Libvirt(STAYS), HandClock()
    asked = await of_an_agent_before(tmp_path, libvirt, clock)
    await stopped(asked, clock)
    assert len(libvirt.told) == LOOKS
    assert not noted(tmp_path)


async def test_what_begins_late_is_told_to_end_once_and_waited_for(tmp_path: Path) -> None:
    libvirt, clock = Libvirt(STAYS, STAYS, LEAVES, LEAVES, STAYS), HandClock()
    asked = await of_an_agent_before(tmp_path, libvirt, clock)
    await stopped(asked, clock)
    assert libvirt.told == [True, True, True, False, False]


async def test_what_has_gone_is_not_waited_for(tmp_path: Path) -> None:
    libvirt, clock = Libvirt(STAYS, GONE), HandClock()
    asked = await of_an_agent_before(tmp_path, libvirt, clock)
    await stopped(asked, clock)
    assert len(libvirt.told) == 2


async def test_what_does_not_end_is_not_certain_and_stays_noted(tmp_path: Path) -> None:
    libvirt, clock = Libvirt(LEAVES), HandClock()
    asked = await of_an_agent_before(tmp_path, libvirt, clock)
    began = clock.monotonic()
    with pytest.raises(TimeoutError):
        await stopped(asked, clock)
    assert clock.monotonic() - began >= ENDS_WITHIN
    libvirt.says = [STAYS]
    libvirt.told.clear()
    await stopped(asked, clock)
    assert len(libvirt.told) == LOOKS


@pytest.mark.parametrize(
    ("answer", "certain"),
    [
        (None, True),
        (Refusal(Reason.HYPERVISOR_FAILED, "aborted"), True),
        (TimeoutError("libvirtd went away during a call"), False),
    ],
    ids=["done", "refused", "lost"],
)
async def test_only_libvirts_answer_ends_it(
    tmp_path: Path, answer: Exception | None, certain: bool
) -> None:
    libvirt, clock = Libvirt(STAYS), HandClock()
    asked = Asked(libvirt.look, clock, tmp_path)
    await asked.begins(VM)
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if answer is None:
        work.set_result(None)
    else:
        work.set_exception(answer)
    await asked.ended(VM, work)
    assert noted(tmp_path) is not certain
