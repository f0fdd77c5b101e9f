"""Plain text is spoken only where it was asked for by name, on this machine, and said loudly."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from common.clock import SystemClock
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.store.memory import MemoryStore
from vserver.config import AgentConfig

FAR = ("0.0.0.0:7400", "[::]:7400", "192.0.2.1:7400", "host-1:7400", "127.0.0.1.example:7400")
NEAR = ("127.0.0.1:7400", "127.1.2.3:7400", "[::1]:7400", "localhost:7400", "unix:/run/v.sock")


def agent(address: str, **way: bool) -> AgentConfig:
    return AgentConfig(
        server_id="host-1",
        management_address="192.0.2.1",
        vtep_address="192.0.2.1",
        vcenter=(address,),
        state_dir=Path("/var/lib/vsignal-agent"),
        **way,
    )


@pytest.mark.parametrize("address", NEAR)
def test_on_this_machine(address: str) -> None:
    Config(listen_plaintext=(address,))
    agent(address, plaintext=True)


@pytest.mark.parametrize("address", FAR)
def test_nowhere_else(address: str) -> None:
    with pytest.raises(ValidationError, match="can be reached from elsewhere"):
        Config(listen_plaintext=(address,))
    with pytest.raises(ValidationError, match="is not on this machine"):
        agent(address, plaintext=True)


def test_not_without_being_asked_for() -> None:
    with pytest.raises(ValidationError, match=r"needs the \[tls\] table"):
        Config(listen=("127.0.0.1:7400",))
    with pytest.raises(ValidationError, match=r"give the \[tls\] table"):
        agent("127.0.0.1:7400")


async def test_it_is_said_loudly(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/center.sock"
    config = Config(listen_plaintext=(address,), store="memory", drain_seconds=0.0)
    with capture_logs() as said:
        async with VCenter(config, MemoryStore(), SystemClock()).running():
            pass
    (line,) = (line for line in said if "PLAIN TEXT" in line["event"])
    assert line["log_level"] == "warning" and line["listen_plaintext"] == (address,)
