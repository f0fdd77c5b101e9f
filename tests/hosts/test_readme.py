"""What we tell people to type works: README's first use, and what `demo --keep` prints."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab.names import CHECKOUT, fresh_run_id

VCTL = str(Path(sys.executable).parent / "vctl")


def told(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, shell=True, cwd=CHECKOUT, capture_output=True, text=True, timeout=400, check=False
    )


def run(line: str) -> str:
    done = told(line)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def kept(hosts_available: None) -> Iterator[tuple[str, str]]:
    """The run id of a lab that the demo left up, and what the demo printed. All of it was true,
    but for how long the blackout lasted, which a busy machine may stretch."""
    run_id = fresh_run_id()
    demo = f"{sys.executable} -m deploy.demo --name {run_id}"
    try:
        said = told(f"{demo} --keep").stdout
        untrue = re.findall(r"^not true: (.*)$", said, re.MULTILINE)
        assert not [what for what in untrue if not what.startswith("blackout ")], said
        assert "The lab stays up." in said
        yield run_id, said
    finally:
        run(f"{demo} --down")


def first_use() -> list[str]:
    text = (CHECKOUT / "README.md").read_text()
    section = text.partition("## First use")[2].partition("\n## ")[0]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block
    lines = [line.partition("#")[0].strip() for line in block[1].splitlines()]
    return [line for line in lines if line.startswith("vctl ")]


@pytest.mark.timeout(600)
def test_the_readmes_first_use_works(kept: tuple[str, str]) -> None:
    run_id, _ = kept
    lines = first_use()
    assert len(lines) >= 8
    for line in lines:
        run(line.replace("vctl", f"{VCTL} --config /tmp/vs-{run_id}/domain/vctl/vctl.toml", 1))


@pytest.mark.timeout(600)
def test_what_the_demo_says_to_try_works(kept: tuple[str, str]) -> None:
    _, said = kept
    lines = re.findall(r"^\s+(\.venv/bin/vctl .*)$", said, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        if " vm move " not in line:  # the README's own move has been made by now
            assert run(line.replace(".venv/bin/vctl", VCTL, 1))
