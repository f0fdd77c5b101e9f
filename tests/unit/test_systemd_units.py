"""The units keep to what they need: systemd's own measure of it, 0 (nothing open) to 10."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
# The agent changes the host's network.
AT_MOST = {"vcenter": 1.5, "vserver": 3.5, "vsignal-vcenter@": 1.5, "vsignal-etcd@": 1.7}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", AT_MOST)
def test_little_is_open_to_whoever_takes_a_daemon_over(unit: str) -> None:
    threshold = f"--threshold={int(AT_MOST[unit] * 10)}"
    command = ["systemd-analyze", "security", "--offline=true", threshold]
    done = subprocess.run(
        [*command, str(UNITS / f"{unit}.service")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize("unit", AT_MOST)
def test_no_core_file_has_keys_or_a_guests_memory_in_it(unit: str) -> None:
    text = (UNITS / f"{unit}.service").read_text()
    assert "LimitCORE=0" in text and "UMask=0077" in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", AT_MOST)
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    """Also that what they start is there, which it is not before they are installed."""
    text = (UNITS / f"{unit}.service").read_text()
    installed = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M)
    file = tmp_path / f"{unit}.service"
    file.write_text(installed)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit in line]
    assert done.returncode == 0 and not said, done.stderr
