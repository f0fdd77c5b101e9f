"""The agent's decisions depend on their arguments alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vserver.core

FORBIDDEN = {"asyncio", "grpc", "os", "time", "socket", "threading", "random", "datetime"}
FILES = sorted(Path(next(iter(vserver.core.__path__))).glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_input_output_and_no_clock(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert not imported & FORBIDDEN


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 5
