"""Certificates for the lab, the demo and the benchmarks: a domain of their own, in a folder."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from common import tls
from common.clock import SystemClock
from common.model.caller import parse_caller
from common.tls import Bundle, TlsSettings
from vcenter.ca import authority
from vcenter.ca.domain import Plan, init, issue

LIFE = timedelta(days=1)
JOIN = "127.0.0.1:7401"  # in a configuration that nobody runs: the lab writes its own


class Domain:
    """`vcenter init`, and certificates for whom it takes more."""

    def __init__(self, folder: Path, name: str = "lab") -> None:
        self.folder = folder
        self.name = name

    def make(self, listen: str) -> None:
        """Once; in another process it is there already."""
        if not (self.folder / "ca.key").exists():
            plan = Plan(self.name, self.folder, [listen], "demo", JOIN)
            init(plan, SystemClock().now_ms())

    @property
    def vctl(self) -> Path:
        """The operator's configuration."""
        return self.folder / "vctl" / "vctl.toml"

    @property
    def operator(self) -> Bundle:
        folder = self.vctl.parent
        return tls.read(TlsSettings(identity=folder / "identity.pem", ca=folder / "ca.pem"))

    def identity(self, who: str) -> TlsSettings:
        """A certificate for `role/name`, made where it does not exist."""
        path = self.folder / f"{who.replace('/', '-')}.pem"
        if not path.exists():
            ca = authority.read(self.name, self.folder / "ca.pem", self.folder / "ca.key")
            issue(ca, parse_caller(who), path, LIFE, SystemClock().now_ms())
        return TlsSettings(identity=path, ca=self.folder / "ca.pem")

    def table(self, who: str) -> str:
        """The same as [tls] in TOML, on one line."""
        settings = self.identity(who)
        return f'tls = {{identity = "{settings.identity}", ca = "{settings.ca}"}}'

    def bundle(self, who: str) -> Bundle:
        return tls.read(self.identity(who))
