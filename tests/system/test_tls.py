"""Mutual TLS: who gets in, who does not, and what a client refuses to talk to."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from common import certificates, rpc, tls
from common.clock import SystemClock
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, directory_pb2_grpc
from common.tls import Bundle, TlsSettings, vcenter_name
from deploy.domain import Domain
from tests.support.calls import refusal_of
from tests.support.domain import HOUR, Ca
from vcenter.app import VCenter
from vcenter.cli import main
from vcenter.config import Config
from vcenter.store.memory import MemoryStore

CA = Ca()
ROOT = Path(__file__).parents[2]


def files(folder: Path, bundle: Bundle) -> TlsSettings:
    """On disk, as a daemon has it."""
    identity, ca = folder / "identity.pem", folder / "ca.pem"
    identity.write_bytes(bundle.key + bundle.chain)
    identity.chmod(0o600)
    ca.write_bytes(bundle.ca)
    return TlsSettings(identity=identity, ca=ca)


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A vCenter of domain `local`, by TLS."""
    settings = files(tmp_path, CA.bundle("vcenter/one"))
    config = Config(listen=("127.0.0.1:0",), tls=settings, store="memory", drain_seconds=0.0)
    async with VCenter(config, MemoryStore(), SystemClock()).running() as center:
        yield f"127.0.0.1:{center.ports[0]}"


def foreign(who: str) -> Bundle:
    """By another CA, of a client that believes ours."""
    return replace(Ca().bundle(who), ca=CA.authority.pem)


async def servers(address: str, bundle: Bundle, **call: object) -> list[object]:
    async with rpc.channel(address, bundle) as channel:
        stub = directory_pb2_grpc.DirectoryStub(channel)
        answer = await stub.ListServers(directory_pb2.ListServersRequest(), timeout=5, **call)  # type: ignore[arg-type]
        return list(answer.servers)


async def test_the_certificate_says_who_calls_and_metadata_does_not(address: str) -> None:
    assert await servers(address, CA.bundle("operator/alice/view")) == []
    metadata = rpc.identity("operator/eve")  # believed in plain text only
    call = servers(address, CA.bundle("vserver/h1"), metadata=metadata)
    assert (await refusal_of(call)).reason is Reason.FORBIDDEN


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: CA.bundle("operator/a/admin", -2 * HOUR, HOUR), id="expired"),
        pytest.param(lambda: CA.bundle("operator/a/admin", HOUR), id="not-yet-valid"),
        pytest.param(lambda: foreign("operator/a/admin"), id="foreign-CA"),
    ],
)
async def test_the_handshake_refuses(address: str, wrong: object) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await servers(address, wrong())  # type: ignore[operator]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "uris",
    [
        ("spiffe://elsewhere/operator/a/admin",),
        ("spiffe://local/stranger/a",),
        ("spiffe://local/operator/a",),  # an operator's access must be said
        ("https://local/operator/a/admin",),
        ("spiffe://local/operator/a/admin", "spiffe://local/vserver/h1"),
        (),
    ],
)
async def test_a_certificate_of_ours_that_names_nobody_of_ours(
    address: str, uris: tuple[str, ...]
) -> None:
    good = CA.bundle("operator/a/admin")
    key, chain = CA.odd(good, *uris)
    call = servers(address, replace(good, key=key, chain=chain))
    assert (await refusal_of(call)).reason is Reason.UNIDENTIFIED


async def test_a_certificate_that_expires_on_an_open_connection_is_refused(address: str) -> None:
    short = CA.bundle("operator/a/view", life=timedelta(seconds=2))
    async with rpc.channel(address, short) as channel:
        stub = directory_pb2_grpc.DirectoryStub(channel)
        request = directory_pb2.ListServersRequest()
        await stub.ListServers(request, timeout=5)
        await asyncio.sleep(2.2)
        assert (
            await refusal_of(stub.ListServers(request, timeout=5))
        ).reason is Reason.UNIDENTIFIED


async def test_nobody_but_a_vcenter_of_the_domain_is_believed_to_be_one(tmp_path: Path) -> None:
    """A vServer's certificate may serve (for moves), but not as a vCenter."""
    server, operator = rpc.server(), CA.bundle("operator/a/admin")
    keeper = tls.Keeper(files(tmp_path, CA.bundle("vserver/h1")))
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(keeper))
    await server.start()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await servers(f"127.0.0.1:{port}", operator)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)


async def test_each_way_in_identifies_as_it_was_configured_to(tmp_path: Path) -> None:
    """With TLS and in plain text at once: metadata is believed at the second alone."""
    config = Config(
        listen=("127.0.0.1:0",),
        listen_plaintext=("127.0.0.1:0",),
        tls=files(tmp_path, CA.bundle("vcenter/one")),
        store="memory",
        drain_seconds=0.0,
    )
    eve = rpc.identity("operator/eve")
    async with VCenter(config, MemoryStore(), SystemClock()).running() as center:
        by_tls, in_plain_text = (f"127.0.0.1:{port}" for port in center.ports)
        for _ in range(2):  # in turns: nothing of one stays for the other
            async with rpc.channel(in_plain_text) as channel:
                stub = directory_pb2_grpc.DirectoryStub(channel)
                request = directory_pb2.ListServersRequest()
                await stub.ListServers(request, metadata=eve, timeout=5)
                unnamed = stub.ListServers(request, timeout=5)
                assert (await refusal_of(unnamed)).reason is Reason.UNIDENTIFIED
            call = servers(by_tls, CA.bundle("vserver/h1"), metadata=eve)
            assert (await refusal_of(call)).reason is Reason.FORBIDDEN
            assert await servers(by_tls, CA.bundle("operator/alice/view")) == []


async def test_in_plain_text_alone_the_caller_says_who_it_is(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/center.sock"
    config = Config(listen_plaintext=(address,), store="memory", drain_seconds=0.0)
    async with (
        VCenter(config, MemoryStore(), SystemClock()).running(),
        rpc.channel(address) as channel,
    ):
        stub = directory_pb2_grpc.DirectoryStub(channel)
        request = directory_pb2.ListServersRequest()
        await stub.ListServers(request, metadata=rpc.identity("operator/eve"), timeout=5)
        host = stub.ListServers(request, metadata=rpc.identity("vserver/h1"), timeout=5)
        assert (await refusal_of(host)).reason is Reason.FORBIDDEN
        unnamed = stub.ListServers(request, timeout=5)
        assert (await refusal_of(unnamed)).reason is Reason.UNIDENTIFIED


async def test_calls_at_the_same_time_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    """Many callers on one connection: each is refused by its own name."""
    address = f"unix:{tmp_path}/center.sock"
    config = Config(listen_plaintext=(address,), store="memory", drain_seconds=0.0)
    async with (
        VCenter(config, MemoryStore(), SystemClock()).running(),
        rpc.channel(address) as channel,
    ):
        stub = directory_pb2_grpc.DirectoryStub(channel)
        request = directory_pb2.ListServersRequest()

        async def heard(who: str) -> str:
            call = stub.ListServers(request, metadata=rpc.identity(who), timeout=20)
            return (await refusal_of(call)).message

        callers = [f"vserver/h{n}" for n in range(300)]
        answers = await asyncio.gather(*map(heard, callers))
        assert [text.split()[0] for text in answers] == callers


async def test_plain_text_gets_nowhere(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = directory_pb2_grpc.DirectoryStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListServers(
                directory_pb2.ListServersRequest(), metadata=rpc.identity("operator/a"), timeout=3
            )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(ValueError, match="need a certificate"):
        rpc.channel("192.0.2.1:7400")


def test_files_that_others_can_read_are_refused(tmp_path: Path) -> None:
    settings = files(tmp_path, CA.bundle("vserver/h1"))
    settings.identity.chmod(0o640)
    with pytest.raises(tls.TlsError, match="chmod 600"):
        tls.read(settings)
    other = CA.bundle("vserver/h1")
    settings.identity.write_bytes(other.key + CA.bundle("vserver/h1").chain)
    settings.identity.chmod(0o600)
    with pytest.raises(tls.TlsError, match="not the certificate's"):
        tls.read(settings)


def test_a_request_proves_its_key() -> None:
    good = certificates.request_pem(certificates.new_key())
    certificates.requested_key(good)
    for bad in (b"", b"x" * 20_000, good.replace(b"M", b"N", 1)):
        with pytest.raises(certificates.BadCertificate):
            certificates.requested_key(bad)


# ---- the daemon, as it is shipped ----


@pytest.fixture(params=["1.3", "1.2"])
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Domain, int, str]]:
    """`vcenter init`, then `vcenter run`; its lowest version of TLS."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = ["init", str(tmp_path / "d"), "--domain", "lab", "--listen", f"127.0.0.1:{port}"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        main(arguments)  # a second CA would orphan the first one's certificates
    assert ended.value.code == 1
    config = tmp_path / "d" / "vcenter.toml"
    command = [sys.executable, "-c", "from vcenter.cli import main; main()", "run", "--config"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, str(config)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=_environment(request.param),
        )
        try:
            _wait(port, process)
            yield Domain(tmp_path / "d"), port, request.param
        finally:
            process.terminate()
            process.wait(20)


def _environment(minimum: str) -> dict[str, str]:
    """As the daemon is started by who wants this version."""
    name = "GRPC_SSL_CIPHER_SUITES"
    given = {key: value for key, value in os.environ.items() if key != name}
    return given if minimum == "1.3" else given | {name: "ECDHE-ECDSA-AES128-GCM-SHA256"}


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the vCenter does not listen")


def test_a_domain_in_one_step_speaks_tls_13_and_12_only_where_allowed(
    daemon: tuple[Domain, int, str],
) -> None:
    domain, port, minimum = daemon
    vctl = [sys.executable, "-m", "vcenter.ctl.main", "--config", str(domain.vctl)]
    done = subprocess.run(
        [*vctl, "tenant", "set", "acme"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert _version(domain, port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert _version(domain, port, ssl.TLSVersion.TLSv1_2) == ("TLSv1.2" if minimum == "1.2" else "")


def _version(domain: Domain, port: int, version: ssl.TLSVersion) -> str:
    """What was agreed on by a client that knows this version only; empty: nothing."""
    folder = domain.vctl.parent
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.load_cert_chain(str(folder / "identity.pem"))
    client.minimum_version = client.maximum_version = version
    client.set_alpn_protocols(["h2"])
    name = vcenter_name(domain.name)
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        try:
            with client.wrap_socket(raw, server_hostname=name) as wrapped:
                return wrapped.version() or ""
        except ssl.SSLError:
            return ""
