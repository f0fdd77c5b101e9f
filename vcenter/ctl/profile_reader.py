"""Reads nested mappings strictly and collects every error with its path. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vcenter.ctl.profile_yaml import Node

T = TypeVar("T")
Read = Callable[[Node, str], None]


class ProfileError(ValueError):
    """Everything that is wrong with a file: (path, what)."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" if path else text for path, text in errors))
        self.errors = errors


class Reader:
    """One reading of one file."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.errors.append((path, str(error)))

    def mapping(self, node: Node, path: str, known: dict[str, Read]) -> None:
        """Hands each member to its reader; refuses those that have none."""
        if not isinstance(node, dict):
            self.errors.append((path, f"expected a mapping with {', '.join(known)}"))
            return
        for key, value in node.items():
            inner = f"{path}.{key}" if path else key
            if key in known:
                known[key](value, inner)
            else:
                self.errors.append((inner, f"unknown; known here: {', '.join(known)}"))

    def scalar(self, parse: Callable[[str], T], store: Callable[[T], object]) -> Read:
        """A reader for one value."""

        def read(node: Node, path: str) -> None:
            with self.at(path):
                if not isinstance(node, str):
                    raise ValueError("expected one value")
                store(parse(node))

        return read
