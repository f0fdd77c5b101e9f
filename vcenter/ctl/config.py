"""vctl.toml: which vCenter, and with which certificate. `vcenter init` and `vctl join` write it."""

from __future__ import annotations

import os
from pathlib import Path

from common import tls
from common.config import ConfigError, Section, load
from common.tls import Bundle, TlsError, TlsSettings
from vcenter.ctl.failure import Exit, Failure

NAME = "vctl.toml"


class VctlConfig(Section):
    """Paths that are not absolute are seen from where this file is."""

    server: str
    tls: TlsSettings


def default_path() -> Path:
    given = os.environ.get("VCTL_CONFIG")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(given) if given else home / "vsignal" / NAME


def read(path: Path) -> tuple[VctlConfig, Bundle]:
    """Raises `Failure`, saying what to do."""
    if not path.exists():
        raise Failure(
            Exit.USAGE,
            f"no certificate: {path} does not exist",
            "`vcenter init` makes one, or an administrator invites you: `vctl cert invite`.",
            "On the vCenter's own machine, where it listens in plain text: --as operator/NAME.",
        )
    try:
        return load(path, VctlConfig), tls.read(settings(path))
    except (ConfigError, TlsError) as error:
        raise Failure(Exit.USAGE, str(error)) from error


def settings(path: Path) -> TlsSettings:
    """[tls], with absolute paths. Raises `ConfigError`."""
    said = load(path, VctlConfig).tls
    return TlsSettings(identity=path.parent / said.identity, ca=path.parent / said.ca)
