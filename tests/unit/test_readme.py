"""README and DESIGN name only what is there, and the conformance table misses no requirement."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"A": 24, "B": 12, "C": 7, "D": 4, "E": 5}


@pytest.mark.parametrize("page", ["README.md", "DESIGN.md"])
def test_the_files_it_names_exist(page: str) -> None:
    named = re.findall(
        r"\b(?:tests|docs|scripts|deploy|proto|vcenter|vserver|common)/[\w./-]*[\w]",
        (ROOT / page).read_text(),
    )
    missing = [path for path in named if not (ROOT / path).exists()]
    assert named and not missing


def test_every_requirement_has_a_line() -> None:
    text = (ROOT / "README.md").read_text()
    lines = re.findall(r"^\| ([A-E]\d+) \| (?:done|part|open) \|", text, re.MULTILINE)
    assert lines == [f"{k}{n}" for k, count in COUNTS.items() for n in range(1, count + 1)]
