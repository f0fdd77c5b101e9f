"""`vctl domain invite` and `vcenter join`: two domains become neighbours, and stay it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from common import certificates, rpc, tls
from common.clock import SystemClock
from common.config import load
from common.jointoken import JoinToken, parse_token
from common.model.caller import parse_caller
from common.pb.vsignal.v1 import federation_pb2, federation_pb2_grpc
from common.secrets import write_private
from common.tls import TlsSettings
from tests.support.calls import TIMEOUT_S
from tests.support.country import soon
from tests.support.process import ROOT, VCENTER
from vcenter.app import VCenter, make_store
from vcenter.ca import authority, domain
from vcenter.config import Config
from vcenter.ctl.main import run

CURRENT = federation_pb2.DOMAIN_STATE_CURRENT
HOUR_MS = 3_600_000


class Site:
    """A domain as `vcenter init` makes it; `serve` reads its configuration anew."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder / name
        plan = domain.Plan(name, self.folder, ["127.0.0.1:0"], "admin", "127.0.0.1:0")
        domain.init(plan, SystemClock().now_ms() - 6 * HOUR_MS)
        vctl = self.folder / "vctl"
        files = TlsSettings(identity=vctl / "identity.pem", ca=vctl / "ca.pem")
        self.operator = tls.read(files)

    @property
    def config(self) -> Path:
        return self.folder / "vcenter.toml"

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[VCenter]:
        clock, config = SystemClock(), load(self.config, Config)
        config = config.model_copy(update={"drain_seconds": 0.0, "bookmark_seconds": 0.1})
        async with VCenter(config, make_store(config, clock), clock).running() as center:
            self.address = f"127.0.0.1:{center.ports[0]}"
            self.join_at = f"127.0.0.1:{center.join_port}"
            yield center

    async def token(self, identity: str, capsys: pytest.CaptureFixture[str]) -> JoinToken:
        """As an administrator's vctl prints it, with the ports that became of 0."""
        kind, _, name = identity.partition("/")
        who = ["--config", f"{self.folder}/vctl/vctl.toml", "--server", self.address]
        noun = "server" if kind == "vserver" else kind
        assert await asyncio.to_thread(run, [noun, "invite", name, *who]) == 0
        printed = capsys.readouterr().out.splitlines()  # among the log of the vCenter, in here
        said = parse_token(next(line for line in printed if line.startswith("vsj1.")))
        assert said.identity == identity
        return replace(said, join=self.join_at, server=self.address)

    async def becomes(self, relation: str, token: JoinToken, *more: str) -> tuple[int | None, str]:
        """Exit code and what was said."""
        process = await asyncio.create_subprocess_exec(
            *(*VCENTER, "join", "--config", str(self.config), "--relation", relation, *more),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate(token.encode().encode())
        return process.returncode, said.decode()

    async def sees(self, name: str) -> federation_pb2.Domain:
        async with rpc.channel(self.address, self.operator) as channel:
            stub = federation_pb2_grpc.FederationStub(channel)
            answer = await stub.ListDomains(federation_pb2.ListDomainsRequest(), timeout=TIMEOUT_S)
        return next(d for d in answer.domain.domains if d.name == name)


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Site, Site]:
    return Site(tmp_path, "east"), Site(tmp_path, "center")


async def current(site: Site, name: str) -> bool:
    return (await site.sees(name)).state == CURRENT


async def test_a_token_makes_a_neighbour(
    sites: tuple[Site, Site], capsys: pytest.CaptureFixture[str]
) -> None:
    east, center = sites
    async with east.serve():
        token = await east.token("domain/center", capsys)
        code, said = await center.becomes("child", token, "--vouches", "tenant")
        assert code == 0, said
        (table,) = load(center.config, Config).domains
        assert (table.name, table.relation, table.vouching) == ("east", "child", "tenant")
        async with center.serve():
            await soon(lambda: current(center, "east"))
        code, said = await Site(center.folder / "other", "center").becomes("child", token)
        assert code == 1 and "used" in said, "it is good once"


async def test_what_it_gives_is_for_calling_only(
    sites: tuple[Site, Site], capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a neighbour could stand for the vCenter itself before that domain's hosts."""
    east, center = sites
    async with east.serve():
        token = await east.token("domain/center", capsys)
        assert (await center.becomes("child", token))[0] == 0
    pem = (center.folder / "domains" / "east" / "identity.pem").read_bytes()
    extensions = certificates.load(pem[pem.index(b"-----BEGIN CERTIFICATE") :]).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []
    uses = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert uses == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("identity", ["domain/west", "vserver/h1"])
async def test_anothers_token_is_not_redeemed(
    sites: tuple[Site, Site], capsys: pytest.CaptureFixture[str], identity: str
) -> None:
    east, center = sites
    before = center.config.read_bytes()
    async with east.serve():
        code, said = await center.becomes("child", await east.token(identity, capsys))
    assert code == 1 and "the token is for" in said
    assert center.config.read_bytes() == before
    assert not (center.folder / "domains").exists()


async def test_a_domain_is_joined_once(
    sites: tuple[Site, Site], capsys: pytest.CaptureFixture[str]
) -> None:
    """The configuration is checked first, so that the token is still good."""
    east, center = sites
    async with east.serve() as serving:
        assert (await center.becomes("child", await east.token("domain/center", capsys)))[0] == 0
        before = center.config.read_bytes()
        token = await east.token("domain/center", capsys)
        code, said = await center.becomes("peer", token)
        assert code == 1 and "two domains of the same name" in said
        assert center.config.read_bytes() == before
        assert serving.ledger.table.invitation(token.invitation_id) is not None


async def test_a_certificate_is_renewed_and_taken_up_while_all_goes_on(
    sites: tuple[Site, Site], capsys: pytest.CaptureFixture[str]
) -> None:
    """More than half of its life is over, so that it is renewed at once, by the other domain."""
    east, center = sites
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(east.serve())
        token = await east.token("domain/center", capsys)
        assert (await center.becomes("child", token))[0] == 0
        files = center.folder / "domains" / "east" / "identity.pem"
        first = _aged(east, files)
        serving = await stack.enter_async_context(center.serve())
        (neighbour,) = serving.federation.neighbours
        dialled = neighbour.channel
        await soon(lambda: current(center, "east"))

        async def renewed() -> bool:
            await asyncio.sleep(0.05)
            return neighbour.channel is not dialled

        await soon(renewed)
        assert tls.bundle(files.read_bytes(), east.operator.ca).certified.serial != first
        assert (await neighbour.domains(tree=False, asked=())).domain.name == "east"
        await soon(lambda: current(center, "east"))


def _aged(east: Site, files: Path) -> str:
    """In place of the certificate that is there; its serial number."""
    ca = authority.read("east", east.folder / "ca.pem", east.folder / "ca.key")
    key, serial = certificates.new_key(), authority.new_serial()
    begun_ms = SystemClock().now_ms() - 2 * HOUR_MS
    who = parse_caller("domain/center")
    signed = ca.sign(key.public_key(), who, serial, begun_ms, timedelta(hours=3))
    write_private(files, certificates.key_pem(key) + signed)
    return serial
