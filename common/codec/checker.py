"""Collects what is wrong in a message, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from common.errors import Violation, invalid

T = TypeVar("T")
V = TypeVar("V")


class Checker:
    """One message's check. `at("vm")` enters a field; `done()` raises all violations at once."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self.violations: list[Violation] = []

    @contextmanager
    def at(self, field: str) -> Iterator[None]:
        self._path.append(field)
        try:
            yield
        finally:
            self._path.pop()

    def fail(self, field: str, description: str) -> None:
        path = ".".join([*self._path, field] if field else self._path)
        self.violations.append(Violation(path, description))

    def parse(self, field: str, parser: Callable[[V], T], value: V, otherwise: T) -> T:
        """`parser(value)`; on ValueError notes the violation and goes on with `otherwise`."""
        try:
            return parser(value)
        except ValueError as error:
            self.fail(field, str(error))
            return otherwise

    def require(self, ok: bool, field: str, description: str) -> bool:
        if not ok:
            self.fail(field, description)
        return ok

    def at_most(self, field: str, count: int, limit: int) -> bool:
        return self.require(count <= limit, field, f"at most {limit}, not {count}")

    def done(self) -> None:
        """Raises `Refusal(INVALID_FIELD)` if anything was wrong."""
        if self.violations:
            raise invalid(self.violations)
