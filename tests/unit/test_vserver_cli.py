"""The command line, as an operator and systemd meet it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
server_id = "host-1"
management_address = "127.0.0.1"
vtep_address = "127.0.0.1"
vcenter = ["127.0.0.1:1"]
state_dir = "{state}"
hypervisor = "memory"
network = "memory"
plaintext = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "vserver.toml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return path


def vserver(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vserver", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_check_config_says_what_would_be_used(config: Path) -> None:
    done = vserver("check-config", "--config", config)
    assert done.returncode == 0 and json.loads(done.stdout)["log"]["level"] == "info"


@pytest.mark.parametrize("command", ["run", "check-config", "doctor"])
def test_a_bad_file_stops_everything_with_ex_config(config: Path, command: str) -> None:
    config.write_text(config.read_text() + "colour = 1\nsite = 2\n")
    done = vserver(command, "--config", config)
    assert done.returncode == 78
    assert "colour: unknown key" in done.stderr and "site: " in done.stderr


def test_doctor_finds_a_memory_host_fit(config: Path) -> None:
    done = vserver("doctor", "--config", config, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fit"] is True
    by_name = {finding["name"]: finding["works"] for finding in found["findings"]}
    assert by_name["enforces acl"] is True and by_name["enforces vlan"] is False
    assert "enforces acl" in vserver("doctor", "--config", config).stdout


def test_doctor_finds_a_host_without_its_hypervisor_unfit(config: Path) -> None:
    text = config.read_text().replace('hypervisor = "memory"', 'hypervisor = "libvirt"')
    config.write_text(text + '[libvirt]\nuri = "qemu+unix:///system?socket=/nonexistent"\n')
    done = vserver("doctor", "--config", config, "-o", "json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["fit"] is False


def test_run_tells_systemd_and_stops_on_sigterm(config: Path, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(address))
        sock.settimeout(20)
        process = subprocess.Popen(
            [sys.executable, "-m", "vserver", "run", "--config", str(config)],
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert sock.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert sock.recv(100) == b"STOPPING=1"
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert any(line["event"] == "stopping" for line in lines), errors
