"""Join tokens, renewal and revocation against a running vCenter with its own CA."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from common import certificates, enrol, rpc, tls
from common.clock import SystemClock
from common.errors import Reason
from common.jointoken import BadToken, JoinToken, parse_token
from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    types_pb2,
)
from common.status import refusal_from_call
from common.tls import Bundle, TlsSettings, vcenter_name
from tests.support.calls import refusal_of
from tests.support.generated import Choices, message
from vcenter.app import VCenter
from vcenter.ca import authority, domain
from vcenter.config import CaSettings, Config
from vcenter.ctl.main import run
from vcenter.store.sqlite import SqliteStore
from vserver.adaptors import parts
from vserver.app import Agent
from vserver.config import AgentConfig, HypervisorKind, NetworkKind

pb = enrolment_pb2
EXAMPLES = int(os.environ.get("VSIGNAL_FUZZ_EXAMPLES", "500"))
HOST_S = 8.0  # the life of a host's certificate where a test waits for its end


class Center:
    """A vCenter in a folder, as `vcenter init` makes it; `serve` again is a restart."""

    def __init__(self, folder: Path, host_hours: float = 1.0) -> None:
        self.folder, self._hours = folder, host_hours
        plan = domain.Plan("local", folder, ["127.0.0.1:0"], "admin", "127.0.0.1:0")
        domain.init(plan, SystemClock().now_ms())
        self.operator = tls.read(settings(folder / "vctl"))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[VCenter]:
        config = Config(
            listen=("127.0.0.1:0",),
            tls=settings(self.folder),
            ca=CaSettings(
                certificate=self.folder / "ca.pem",
                key=self.folder / "ca.key",
                listen="127.0.0.1:0",
                host_hours=self._hours,
            ),
            store=f"sqlite:{self.folder}/ledger.db",
            drain_seconds=0.0,
        )
        store = SqliteStore(self.folder / "ledger.db")
        async with VCenter(config, store, SystemClock()).running() as center:
            self.address = f"127.0.0.1:{center.ports[0]}"
            self.join = f"127.0.0.1:{center.join_port}"
            async with rpc.channel(self.address, self.operator) as channel:
                self.enrolment = enrolment_pb2_grpc.EnrolmentStub(channel)
                yield center

    async def invite(self, identity: str, seconds: int = 600) -> JoinToken:
        request = pb.InviteRequest(identity=identity, valid_for={"seconds": seconds})
        answer = await self.enrolment.Invite(request)
        return replace(parse_token(answer.token), join=self.join)

    async def bundle(self, identity: str, folder: Path) -> Bundle:
        """A certificate, as one gets it."""
        token = await self.invite(identity)
        await asyncio.to_thread(enrol.join, token, settings(folder))
        return tls.read(settings(folder))


def settings(folder: Path) -> TlsSettings:
    return TlsSettings(identity=folder / "identity.pem", ca=folder / "ca.pem")


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center(tmp_path / "domain")


async def reason_of(call: Callable[[], None]) -> Reason:
    """Of a call that blocks."""
    with pytest.raises(grpc.RpcError) as caught:
        await asyncio.to_thread(call)
    refusal = refusal_from_call(caught.value)
    assert refusal is not None, caught.value
    return refusal.reason


# ---- tokens ----


async def test_of_200_who_redeem_a_token_at_once_one_succeeds(center: Center) -> None:
    async with center.serve():
        token = await center.invite("vserver/h1")
        credentials = grpc.ssl_channel_credentials(token.ca.encode())
        options = [*rpc.CLIENT_OPTIONS, rpc.demand(vcenter_name("local"))]
        async with grpc.aio.secure_channel(token.join, credentials, options=options) as channel:
            join = enrolment_pb2_grpc.JoiningStub(channel).Join
            request = pb.JoinRequest(
                invitation_id=token.invitation_id,
                secret=token.secret,
                request=certificates.request_pem(certificates.new_key()),
            )
            calls = [join(request, timeout=30) for _ in range(200)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        good = [a for a in answers if isinstance(a, pb.JoinResponse)]
        refused = [refusal_from_call(a) for a in answers if isinstance(a, grpc.aio.AioRpcError)]
        assert len(good) == 1 and len(refused) == 199
        assert {r and r.reason for r in refused} == {Reason.TOKEN_REFUSED}
        assert certificates.certified(good[0].certificate).caller.path == "vserver/h1"
        listed = await center.enrolment.ListCertificates(pb.ListCertificatesRequest())
        assert len(listed.certificates) == 1


async def test_tokens_that_are_not_good(center: Center, tmp_path: Path) -> None:
    files = settings(tmp_path / "host")
    async with center.serve():
        token, brief = await center.invite("vserver/h1"), await center.invite("vserver/h2", 1)
        wrong = replace(token, secret="x" * 43)
        unknown = replace(token, invitation_id="00000000-0000-4000-8000-000000000000")
        await asyncio.sleep(1.1)
        for bad in (wrong, unknown, brief):
            assert await reason_of(partial(enrol.join, bad, files)) is Reason.TOKEN_REFUSED
        stranger = authority.create("local", SystemClock().now_ms()).pem.decode()
        with pytest.raises(grpc.RpcError) as caught:  # somebody in between, with another CA
            await asyncio.to_thread(enrol.join, replace(token, ca=stranger), files)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert not files.identity.exists()
        await asyncio.to_thread(enrol.join, token, files)  # none of that has used it up
        assert files.identity.stat().st_mode & 0o777 == 0o600
        assert await reason_of(partial(enrol.join, token, files)) is Reason.TOKEN_REFUSED
    for text in ("", "vsj1.", token.encode()[:-8], "vsj2." + token.encode()):
        with pytest.raises(BadToken):
            parse_token(text)
    assert parse_token(token.encode()) == token and token.secret not in repr(token)


async def test_a_token_outlives_a_restart_and_its_secret_is_stored_nowhere(
    center: Center, tmp_path: Path
) -> None:
    async with center.serve():
        token = await center.invite("operator/alice/view")
    for file in center.folder.rglob("*"):
        if file.is_file():
            assert token.secret.encode() not in file.read_bytes(), file
    async with center.serve():
        await asyncio.to_thread(enrol.join, replace(token, join=center.join), settings(tmp_path))
    assert tls.read(settings(tmp_path)).certified.caller.path == "operator/alice/view"


async def test_no_message_to_the_listener_that_asks_for_no_certificate_changes_anything(
    center: Center,
) -> None:
    """What tests/system/test_fuzz.py does with the methods of the other listeners."""
    async with center.serve() as running:
        token = await center.invite("vserver/h1")
        before = running.ledger.table.revision
        credentials = grpc.ssl_channel_credentials(token.ca.encode())
        options = [*rpc.CLIENT_OPTIONS, rpc.demand(vcenter_name("local"))]
        async with grpc.aio.secure_channel(token.join, credentials, options=options) as channel:
            join = enrolment_pb2_grpc.JoiningStub(channel).Join
            for number in range(EXAMPLES):
                choices = Choices(random.Random(number).randbytes(100))
                request = message(pb.JoinRequest.DESCRIPTOR, choices)
                if number % 2:  # one that comes past the first check
                    request.request = certificates.request_pem(certificates.new_key())
                refusal = await refusal_of(join(request, timeout=30))
                assert refusal.reason in (Reason.INVALID_FIELD, Reason.TOKEN_REFUSED)
        assert running.ledger.table.revision == before


# ---- revocation ----


async def to_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def hello(stub: session_pb2_grpc.SessionStub) -> Any:
    stream = stub.Attach()
    server = types_pb2.Server(server_id="h1", hypervisor="memory")
    await stream.write(session_pb2.AgentMessage(hello=session_pb2.Hello(server=server)))
    await stream.read()
    return stream


@pytest.mark.parametrize("by", ["serial", "identity"])
async def test_revocation_ends_open_streams_within_5_s(
    center: Center, tmp_path: Path, by: str
) -> None:
    async with center.serve():
        host = await center.bundle("vserver/h1", tmp_path / "h1")
        watcher = await center.bundle("operator/w/view", tmp_path / "w")
        async with (
            rpc.channel(center.address, host) as one,
            rpc.channel(center.address, watcher) as two,
        ):
            attached = await hello(session_pb2_grpc.SessionStub(one))
            watching = directory_pb2_grpc.DirectoryStub(two).Watch(directory_pb2.WatchRequest())
            await watching.read()
            for bundle in (host, watcher):
                who = bundle.certified
                value = who.serial.upper() if by == "serial" else who.caller.path
                await center.enrolment.Revoke(pb.RevokeRequest(**{by: value}))
            async with asyncio.timeout(5):
                for stream in (attached, watching):
                    assert (await refusal_of(to_end(stream))).reason is Reason.REVOKED
            lookup = directory_pb2_grpc.DirectoryStub(two).ListServers
            call = lookup(directory_pb2.ListServersRequest())
            assert (await refusal_of(call)).reason is Reason.REVOKED
            renew = enrolment_pb2_grpc.EnrolmentStub(one).Renew
            request = certificates.request_pem(certificates.new_key())
            refusal = await refusal_of(renew(pb.RenewRequest(request=request)))
            assert refusal.reason is Reason.REVOKED
    async with center.serve(), rpc.channel(center.address, host) as one:  # after a restart, too
        attached = session_pb2_grpc.SessionStub(one).Attach()
        assert (await refusal_of(attached.read())).reason is Reason.REVOKED


async def test_revoking_an_identity_withdraws_its_invitations(
    center: Center, tmp_path: Path
) -> None:
    async with center.serve():
        token = await center.invite("vserver/h1")
        await center.enrolment.Revoke(pb.RevokeRequest(identity="vserver/h1"))
        again = partial(enrol.join, token, settings(tmp_path))
        assert await reason_of(again) is Reason.TOKEN_REFUSED
        call = center.enrolment.Revoke(pb.RevokeRequest(identity="vserver/h9"))
        assert (await refusal_of(call)).reason is Reason.UNKNOWN_CERTIFICATE


# ---- renewal ----


async def until(look: Callable[[], Awaitable[bool]], within: float) -> None:
    async with asyncio.timeout(within):
        while not await look():  # noqa: ASYNC110 - it is another process's or task's state
            await asyncio.sleep(0.05)


async def test_an_agent_renews_by_itself_and_keeps_its_stream(tmp_path: Path) -> None:
    """Longer than its first certificate lives; then its host loses its right."""
    center = Center(tmp_path / "domain", host_hours=HOST_S / 3600)
    async with center.serve() as running:
        first = await center.bundle("vserver/h1", tmp_path / "h1")
        config = AgentConfig(
            server_id="h1",
            management_address="127.0.0.1",
            vtep_address="127.0.0.1",
            vcenter=(center.address,),
            state_dir=tmp_path / "state",
            hypervisor=HypervisorKind.MEMORY,
            network=NetworkKind.MEMORY,
            tls=settings(tmp_path / "h1"),
        )
        stopping = asyncio.Event()
        agent = Agent(config, parts(config, SystemClock()))
        serving = asyncio.create_task(agent.run(stopping))

        async def server() -> types_pb2.Server | None:
            async with rpc.channel(center.address, center.operator) as channel:
                stub = directory_pb2_grpc.DirectoryStub(channel)
                answer = await stub.ListServers(directory_pb2.ListServersRequest())
            return answer.servers[0].server if answer.servers else None

        async def attached() -> bool:
            return (seen := await server()) is not None and seen.liveness == 1

        await until(attached, 10)
        session = running.sessions._live["h1"]
        await asyncio.sleep(HOST_S + 3)  # the first certificate has expired by now
        now = tls.read(settings(tmp_path / "h1")).certified
        assert now.serial != first.certified.serial and now.caller == first.certified.caller
        assert running.sessions._live.get("h1") is session and not session.closed
        await center.enrolment.Revoke(pb.RevokeRequest(identity="vserver/h1"))

        async def ended() -> bool:
            return session.closed

        await until(ended, 5)
        stopping.set()
        await serving


async def test_a_stream_ends_with_a_certificate_that_was_not_renewed(tmp_path: Path) -> None:
    center = Center(tmp_path / "domain", host_hours=3.6 / 3600)
    async with center.serve():
        host = await center.bundle("vserver/h1", tmp_path / "h1")
        async with rpc.channel(center.address, host) as channel:
            attached = await hello(session_pb2_grpc.SessionStub(channel))
            async with asyncio.timeout(3.6 + 4):
                assert (await refusal_of(to_end(attached))).reason is Reason.UNIDENTIFIED


async def test_new_handshakes_see_the_vcenters_new_certificate(center: Center) -> None:
    async with center.serve() as running:
        keeper_file = center.folder / "identity.pem"
        ca = authority.read("local", center.folder / "ca.pem", center.folder / "ca.key")
        await center.enrolment.ListCertificates(pb.ListCertificatesRequest())
        before = await served_serial(center)
        domain.issue(
            ca,
            certificates.certified(tls.read(settings(center.folder)).chain).caller,
            keeper_file,
            domain.VCENTER_LIFE,
            SystemClock().now_ms(),
        )

        async def changed() -> bool:
            return await served_serial(center) != before

        await until(changed, 6)
        await center.enrolment.ListCertificates(pb.ListCertificatesRequest())  # the old connection
        assert running.ports


async def served_serial(center: Center) -> bytes:
    """What a new handshake sees."""
    host, _, port = center.address.rpartition(":")
    context = ssl.create_default_context(cafile=str(center.folder / "ca.pem"))
    context.load_cert_chain(str(center.folder / "vctl" / "identity.pem"))
    context.set_alpn_protocols(["h2"])
    name = vcenter_name("local")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
    try:
        return bytes(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    finally:
        writer.close()


# ---- the commands ----


async def test_the_commands(
    center: Center, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with center.serve():
        mine = ["--config", str(center.folder / "vctl" / "vctl.toml"), "--server", center.address]

        async def vctl(*arguments: str, expect: int = 0) -> str:
            """The last line that it printed: the vCenter's log is on the same output."""
            code = await asyncio.to_thread(run, [*arguments])
            told = capsys.readouterr()
            assert code == expect, told.err
            return (told.out.splitlines() or [""])[-1]

        token = await vctl("cert", "invite", "operator/bob/view", *mine)
        joined = replace(parse_token(token), join=center.join, server=center.address)
        home = ["--config", str(tmp_path / "bob" / "vctl.toml")]
        await vctl("cert", "join", joined.encode(), *home)
        await vctl("server", "list", *home)
        await vctl("tenant", "set", "acme", *home, expect=7)
        serial = await vctl("cert", "list", "-o", "name", *mine)
        old = (tmp_path / "bob" / "identity.pem").read_bytes()
        await vctl("cert", "renew", *home)
        assert (tmp_path / "bob" / "identity.pem").read_bytes() != old
        await vctl("cert", "revoke", serial, *mine)
        await vctl("server", "list", *home)  # the new one is good
        await vctl("cert", "revoke", "operator/bob/view", *mine)
        await vctl("server", "list", *home, expect=7)
        assert (tmp_path / "bob" / "identity.pem").stat().st_mode & 0o077 == 0
