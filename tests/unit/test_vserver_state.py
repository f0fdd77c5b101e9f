"""What an agent keeps across a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.clock import SystemClock
from tests.unit.agent_values import OTHER, VM
from vserver.core.epochs import Epochs, KnownEpochs
from vserver.state import FileState, Keeper, StateError


async def test_epochs_come_back(tmp_path: Path) -> None:
    state = FileState(tmp_path / "new" / "directory")
    assert await state.load() == KnownEpochs()
    kept = KnownEpochs({VM: 4, OTHER: 2}, {VM: 4})
    await state.save(kept)
    assert await state.load() == kept
    assert [path.name for path in (tmp_path / "new" / "directory").iterdir()] == ["epochs.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"seen": 1, "held": {}}', "null"])
async def test_a_damaged_file_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "epochs.json").write_text(text)
    with pytest.raises(StateError, match=r"epochs\.json is damaged"):
        await FileState(tmp_path).load()


async def test_a_half_written_file_does_not_count(tmp_path: Path) -> None:
    state = FileState(tmp_path)
    await state.save(KnownEpochs({VM: 4}, {}))
    (tmp_path / "epochs.new").write_text('{"seen": {')
    assert (await state.load()).seen == {VM: 4}


async def test_the_keeper_saves_what_changed(tmp_path: Path) -> None:
    epochs, state = Epochs(), FileState(tmp_path)
    keeper = Keeper(epochs, state, SystemClock())
    running = asyncio.create_task(keeper.run())
    epochs.hold(VM, 3)
    keeper.wake.ring()
    async with asyncio.timeout(5):
        while (await state.load()).held != {VM: 3}:  # noqa: ASYNC110 - a file does not ring
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_disk_that_fails_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    epochs = Epochs()
    keeper = Keeper(epochs, FileState(tmp_path / "file"), SystemClock())
    epochs.note(VM, 1)
    assert not await keeper.keep()
