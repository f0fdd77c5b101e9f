"""vcenter.toml: checked whole before anything starts; unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from common.config import Section
from common.log import LogSettings
from common.model.identity import parse_name
from common.rpc import MAX_MESSAGE, is_local
from common.tls import TlsSettings
from vcenter.federation.settings import DomainSettings
from vcenter.store.etcd.address import Address, parse_address

MIN_SHARED_HOURS = 0.1


class MoveSettings(Section):
    """How many moves at a time; the others wait for their turn. A link is a pair of VTEPs."""

    per_source: int = Field(default=2, ge=1, le=1000)
    per_destination: int = Field(default=2, ge=1, le=1000)
    per_link: int = Field(default=2, ge=1, le=1000)


class CallerSettings(Section):
    """How much one caller may ask for: calls a second, and calls and streams at a time. What is
    beyond that is refused with OVERLOADED and when to come back; messages of a stream are held
    back. A request counts as one more call with every `bytes_per_call` of it."""

    calls_per_second: float = Field(ge=1.0, le=1e6)
    at_a_time: int = Field(ge=1, le=100_000)
    bytes_per_call: int = Field(default=1024, ge=1, le=MAX_MESSAGE)


class HostSettings(CallerSettings):
    """The same of those who keep the domain running: what they say at once counts once."""

    bytes_per_call: int = Field(default=MAX_MESSAGE, ge=1, le=MAX_MESSAGE)


class Ipmi(Section):
    """A host's baseboard controller. `password_file`: read by ipmitool itself, as its `-f`."""

    address: str = Field(min_length=1, max_length=255)
    user: str = Field(min_length=1, max_length=64)
    password_file: Path


class FenceSettings(Section):
    """How to switch a host off. `command`: its exit code 0 says that the host is off; `{server_id}`
    and `{management_address}` are filled in. A host that `ipmi` names is switched off by ipmitool
    instead. What has not answered in `timeout_seconds` is unknown, which is not fenced."""

    command: tuple[str, ...] = ()
    ipmi: dict[str, Ipmi] = Field(default_factory=dict, max_length=10_000)
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600.0)


class CaSettings(Section):
    """The vCenter's own CA. `listen`: where join tokens are redeemed, without a client's
    certificate; `join` is what tokens say of it, where that differs. Lives of certificates: hosts
    and tools renew theirs by themselves when half is over, people with `vctl cert renew`."""

    certificate: Path
    key: Path
    listen: str
    join: str = ""
    host_hours: float = Field(default=24.0, ge=0.001, le=24 * 366.0)
    operator_days: float = Field(default=90.0, ge=0.001, le=366.0)

    @property
    def issuing(self) -> str:
        return self.join or self.listen


class Config(Section):
    """`listen`: `host:port` or `unix:/path`, with TLS. `listen_plaintext`: the same without, on
    loopback and unix sockets only; whoever reaches them is believed to be whom it says.
    `store`: `sqlite:PATH`, `etcd://HOST:PORT,HOST:PORT,HOST:PORT[/PREFIX]` (several vCenters may
    share it), or `memory`.

    `bookmark_seconds`: how often a watcher that hears of no change is told how far it is.
    `domains`: the vCenters around this one, its own not among them.
    `history_hours`: for how long it can be asked what was, and a watcher may be away.
    `operations_hours`: for how long an operation that has ended can be asked for.
    `freeze_after`: an identity that changes hands so often in `freeze_seconds` is frozen.
    `infrastructure`: of each vServer, vCenter and operator; `confined`: of each tenant and watcher.
    `audit_file`: who changed what; "" is beside the database. `audit_mib`: of all of it together.
    """

    domain: str = "local"
    listen: tuple[str, ...] = ()
    listen_plaintext: tuple[str, ...] = ()
    store: str = "sqlite:vcenter.db"
    lease_seconds: float = Field(default=10.0, ge=1.0, le=300.0)
    bookmark_seconds: float = Field(default=10.0, ge=0.05, le=3600.0)
    history_hours: float = Field(default=24.0, ge=0.0, le=24.0 * 3660)
    operations_hours: float = Field(default=24.0 * 30, ge=0.0, le=24.0 * 3660)
    audit_file: str = ""
    audit_mib: int = Field(default=64, ge=1, le=65536)
    freeze_after: int = Field(default=5, ge=2, le=1000)
    freeze_seconds: float = Field(default=180.0, ge=1.0, le=86400.0)
    drain_seconds: float = Field(default=5.0, ge=0.0, le=60.0)
    moves: MoveSettings = MoveSettings()
    infrastructure: HostSettings = HostSettings(calls_per_second=20_000.0, at_a_time=4_000)
    confined: CallerSettings = CallerSettings(calls_per_second=500.0, at_a_time=100)
    fence: FenceSettings = FenceSettings()
    server: str = ""  # where clients reach the vCenter, if not at the first of `listen`
    tls: TlsSettings | None = None
    ca: CaSettings | None = None
    domains: tuple[DomainSettings, ...] = ()
    log: LogSettings = LogSettings()

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        return parse_name(value)

    @model_validator(mode="after")
    def _domains(self) -> Self:
        names = [self.domain, *(domain.name for domain in self.domains)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two domains of the same name: {', '.join(twice)}")
        return self

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value.startswith("etcd:"):
            parse_address(value)
        elif value != "memory" and not value.startswith("sqlite:"):
            raise ValueError("use sqlite:PATH, etcd://HOST:PORT,HOST:PORT,HOST:PORT or memory")
        return value

    @model_validator(mode="after")
    def _history_for_replicas(self) -> Self:
        """A replica that was cut off for a moment must find in the log what it has missed."""
        if self.etcd is not None and self.history_hours < MIN_SHARED_HOURS:
            raise ValueError(f"history_hours: at least {MIN_SHARED_HOURS} with etcd")
        return self

    @field_validator("listen", "listen_plaintext")
    @classmethod
    def _listen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not text.startswith("unix:") and not text.rpartition(":")[2].isdecimal():
                raise ValueError(f"use HOST:PORT or unix:/PATH, not {text!r}")
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not self.listen and not self.listen_plaintext:
            raise ValueError("listen: name at least one address")
        if self.listen and self.tls is None:
            raise ValueError("listen: needs the [tls] table; `vcenter init` makes all of it")
        if self.ca is not None and self.tls is None:
            raise ValueError("ca: needs the [tls] table as well")
        for address in self.listen_plaintext:
            if not is_local(address):
                raise ValueError(f"listen_plaintext: {address} can be reached from elsewhere")
        return self

    @property
    def audit(self) -> Path | None:
        """None: in memory, as the ledger."""
        if self.audit_file:
            return Path(self.audit_file)
        return Path(f"{self.database}.audit.jsonl") if self.database is not None else None

    @property
    def database(self) -> Path | None:
        """None: there is no file."""
        is_file = self.store.startswith("sqlite:")
        return Path(self.store.removeprefix("sqlite:")) if is_file else None

    @property
    def etcd(self) -> Address | None:
        return parse_address(self.store) if self.store.startswith("etcd:") else None
