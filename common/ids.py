"""Ids that nobody has used before: handed in like the clock, so that a run can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from uuid import uuid4

NewId: TypeAlias = Callable[[], str]


def random_id() -> str:
    """A random UUID (RFC 9562, version 4)."""
    return str(uuid4())
