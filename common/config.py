"""Configuration files: TOML, checked whole before anything starts; unknown keys are refused.

A daemon that starts with half of what its operator meant is worse than one that does not start, and
an operator who is told of one mistake at a time restarts as often as there are mistakes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A table of a configuration file. Subclass it; it is immutable and forgives nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ConfigError(Exception):
    """What is wrong with a file: one line a problem, each with its dotted key."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path = path
        self.problems = tuple(problems)


S = TypeVar("S", bound=Section)


def load(path: Path, model: type[S]) -> S:
    """Read and check a file; raises `ConfigError` with every problem at once."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"cannot be read: {error}"]) from error
    return parse(text, model, path)


def parse(text: str, model: type[S], path: Path = Path("<text>")) -> S:
    """The same for text that is at hand."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"is not TOML: {error}"]) from error
    try:
        # By way of JSON, because strictness then still lets text be a path or an enum member.
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise ConfigError(path, _problems(error)) from error


def _problems(error: ValidationError) -> list[str]:
    return [f"{_key(item['loc'])}: {_words(item['type'], item['msg'])}" for item in error.errors()]


def _key(location: Sequence[int | str]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key or "the file"


def _words(kind: str, message: str) -> str:
    """Pydantic's own words, but for the two that an operator meets most."""
    known = {"extra_forbidden": "unknown key", "missing": "is required"}
    return known.get(kind, message.removeprefix("Value error, "))
