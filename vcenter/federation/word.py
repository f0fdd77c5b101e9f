"""What a domain has said, as far as it was read here."""

from __future__ import annotations

from typing import NamedTuple

from vcenter.core.duplicate import Held


class Word(NamedTuple):
    """`is_whole`: what is not there, it does not have; `is_current`: and what is there, it has now.
    `freezes`: what it holds, and another does, is frozen."""

    held: Held
    is_whole: bool = True
    is_current: bool = True
    freezes: bool = True
