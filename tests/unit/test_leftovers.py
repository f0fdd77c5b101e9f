"""What `./scripts/hundred-moves` would see of things that a move leaves behind."""

from __future__ import annotations

from collections import Counter

from deploy.faults.leftovers import more


def test_what_is_left_behind_and_what_is_missing_is_named() -> None:
    before = Counter(["link vnet", "process qemu", "process qemu"])
    assert not more(before, Counter(before))
    assert more(before, before + Counter(["link vnet"])) == ["+1 link vnet"]
    assert more(before, before - Counter(["process qemu"])) == ["-1 process qemu"]
