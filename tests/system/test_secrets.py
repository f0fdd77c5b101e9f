"""A host's whole way into a domain, by the daemons and commands as they are shipped, at their most
talkative: nothing that they print, log, audit, keep in the ledger or show in `ps` is a secret, and
what is left of them when they crash is nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.jointoken import parse_token

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
ANY_CORE = 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"'
LOUD = '\n[log]\nlevel = "debug"\nformat = "json"\n'
MAIN = {"vcenter": "vcenter.cli", "vserver": "vserver.cli", "vctl": "vcenter.ctl.main"}


def program(name: str, *words: str) -> list[str]:
    return [sys.executable, "-c", f"from {MAIN[name]} import main; main()", *words]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """A vCenter in a folder; `said` is all that anybody there has printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.domain = folder, folder / "domain"
        self.said: list[str] = []
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.listen, join = (f"127.0.0.1:{free_port()}" for _ in range(2))
        options = ["--domain", "lab", "--listen", self.listen, "--join", join]
        self.run("vcenter", "init", str(self.domain), *options)

    def run(self, name: str, *words: str, stdin: str = "", code: int = 0) -> str:
        """Its standard output, which is not among what was `said` where it is a token."""
        done = subprocess.run(
            program(name, *words), input=stdin, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr
        is_token = "invite" in words
        self.said += [done.stderr] if is_token else [done.stderr, done.stdout]
        return done.stdout

    def vctl(self, *words: str) -> str:
        return self.run("vctl", "--config", str(self.domain / "vctl/vctl.toml"), *words)

    def start(self, name: str, config: Path) -> subprocess.Popen[bytes]:
        """As who is allowed to leave cores of any size starts it."""
        with config.open("a") as file:
            file.write(LOUD)
        with (self.folder / f"{name}.log").open("wb") as log:
            daemon = subprocess.Popen(
                ["sh", "-c", ANY_CORE, "sh", *program(name, "run", "--config", str(config))],
                cwd=self.folder,  # where a core would be left
                stdout=log,
                stderr=log,
            )
        self.daemons.append(daemon)
        return daemon

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def until(what: str, look: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        for daemon in made.daemons:
            daemon.kill()
            daemon.wait()


def host(place: Place) -> Path:
    folder = place.folder / "host"
    folder.mkdir()
    config = folder / "vserver.toml"
    config.write_text(
        'server_id = "h1"\nmanagement_address = "127.0.0.1"\nvtep_address = "127.0.0.1"\n'
        f'vcenter = ["{place.listen}"]\nstate_dir = "{folder}/state"\n'
        'hypervisor = "memory"\nnetwork = "memory"\n'
        f'tls = {{identity = "{folder}/identity.pem", ca = "{folder}/ca.pem"}}\n'
    )
    return config


def key_lines(identity: Path) -> list[str]:
    """Of the private key in it, those that nobody can guess."""
    text = identity.read_text()
    body = text.partition("PRIVATE KEY-----")[2].partition("-----END")[0].split()
    return [line for line in body if len(line) > 20]


def test_no_secret_is_printed_logged_kept_or_dumped(place: Place) -> None:
    center = place.start("vcenter", place.domain / "vcenter.toml")
    until("the vCenter serves", lambda: '"serving"' in place.log("vcenter"))
    token, other = (place.vctl("server", "invite", name).strip() for name in ("h1", "h2"))
    config = host(place)
    place.run("vserver", "join", "--config", str(config), stdin=token)
    place.run("vserver", "join", "--config", str(config), stdin=token, code=1)  # it is used up
    place.run("vserver", "join", "--config", str(config), stdin=other, code=1)  # another host's
    agent = place.start("vserver", config)
    until("the agent is attached", lambda: '"attached"' in place.log("vserver"))
    operators = place.domain / "vctl/identity.pem"
    hidden = key_lines(operators)
    place.vctl("cert", "renew")
    for look in (("cert", "list"), ("server", "list"), ("audit",), ("events", "--snapshot")):
        place.vctl(*look, "-o", "json", *(["--timeout", "1"] if look[0] == "events" else []))

    for identity in (operators, config.with_name("identity.pem"), place.domain / "identity.pem"):
        hidden += key_lines(identity)
    hidden += key_lines(place.domain / "ca.key")
    assert len(hidden) >= 10
    for text in (token, other):
        hidden += [text, parse_token(text).secret]
    seen = {f"what was printed: {n}": text.encode() for n, text in enumerate(place.said)}
    for daemon in (center, agent):
        for file in ("cmdline", "environ"):
            seen[f"{daemon.pid} {file}"] = Path(f"/proc/{daemon.pid}/{file}").read_bytes()
    files = [f for f in place.folder.rglob("*") if f.suffix not in (".pem", ".key") and f.is_file()]
    seen |= {str(file): file.read_bytes() for file in files}
    assert {"vcenter.log", "vserver.log", "ledger.db"} <= {file.name for file in files}
    assert any("audit" in file.name for file in files)
    for where, content in seen.items():
        assert not [secret for secret in hidden if secret.encode() in content], where
    for daemon in (center, agent):
        os.kill(daemon.pid, signal.SIGSEGV)
        _, status = os.waitpid(daemon.pid, 0)
        daemon.returncode = 0  # it has been waited for
        assert os.WTERMSIG(status) == signal.SIGSEGV and not os.WCOREDUMP(status)
