"""vcenter.toml: checked whole before anything starts; unknown keys are refused."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator

from common.config import Section
from common.log import LogSettings
from common.model.identity import parse_name


class Config(Section):
    """`listen`: `host:port` or `unix:/path`. `store`: `sqlite:PATH` or `memory`.

    `trusted_networks`: from where a plain-text identity is believed, besides loopback and unix
    sockets; until certificates exist keep it to networks that nobody else can reach.
    `bookmark_seconds`: how often a watcher that hears of no change is told how far it is.
    `history_hours`: for how long it can be asked what was, and a watcher may be away.
    """

    domain: str = "local"
    listen: tuple[str, ...] = ("127.0.0.1:7400",)
    store: str = "sqlite:vcenter.db"
    lease_seconds: float = Field(default=10.0, ge=1.0, le=300.0)
    trusted_networks: tuple[str, ...] = ()
    bookmark_seconds: float = Field(default=10.0, ge=0.05, le=3600.0)
    history_hours: float = Field(default=24.0, ge=0.0, le=24.0 * 3660)
    drain_seconds: float = Field(default=5.0, ge=0.0, le=60.0)
    log: LogSettings = LogSettings()

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        return parse_name(value)

    @field_validator("trusted_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value != "memory" and not value.startswith("sqlite:"):
            raise ValueError("use sqlite:PATH or memory")
        return value

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one address")
        for text in value:
            if not text.startswith("unix:") and not text.rpartition(":")[2].isdecimal():
                raise ValueError(f"use HOST:PORT or unix:/PATH, not {text!r}")
        return value

    @property
    def database(self) -> Path | None:
        """None: in memory."""
        return Path(self.store.removeprefix("sqlite:")) if self.store != "memory" else None
