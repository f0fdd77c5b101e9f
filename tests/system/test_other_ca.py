"""Certificates that some other CA keeps: made by openssl, with RSA keys, by an intermediate CA."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from common import rpc, tls
from common.clock import SystemClock
from common.errors import Reason
from common.pb.vsignal.v1 import enrolment_pb2, enrolment_pb2_grpc, inventory_pb2
from common.pb.vsignal.v1 import inventory_pb2_grpc as inventory
from common.pb.vsignal.v1.types_pb2 import Tenant
from common.tls import TlsSettings
from tests.support.calls import refusal_of
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.store.memory import MemoryStore

CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
LEAF = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage={usage}\nsubjectAltName={names}\n"
SERVER = "URI:spiffe://local/vcenter/one,DNS:vcenter.local.vsignal.internal"


class Openssl:
    """A root CA, one below it that signs, and what that has signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made("root", CA, [])
        self._made("middle", CA, ["-CA", "root.pem", "-CAkey", "root.key"])

    def identity(self, name: str, names: str, usage: str = "clientAuth") -> TlsSettings:
        """As docs/trust.md has it: key and chain in one file, the root in another."""
        signer = ["-CA", "middle.pem", "-CAkey", "middle.key"]
        self._made(name, LEAF.format(usage=usage, names=names), signer)
        parts = [f"{name}.key", f"{name}.pem", "middle.pem"]
        file = self.folder / f"{name}-identity.pem"
        file.touch(0o600)
        file.write_text("".join((self.folder / part).read_text() for part in parts))
        return TlsSettings(identity=file, ca=self.folder / "root.pem")

    def _made(self, name: str, extensions: str, signer: list[str]) -> None:
        (self.folder / f"{name}.ext").write_text(f"[v3]\n{extensions}")
        self._run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048",
                  "-out", f"{name}.key")  # fmt: skip
        self._run("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}",
                  "-out", f"{name}.csr")  # fmt: skip
        by = signer or ["-signkey", f"{name}.key"]
        how = ["-days", "1", "-CAcreateserial", "-extfile", f"{name}.ext", "-extensions", "v3"]
        self._run("x509", "-req", "-in", f"{name}.csr", *by, *how, "-out", f"{name}.pem")

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture
def openssl(tmp_path: Path) -> Openssl:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return Openssl(tmp_path)


@pytest.fixture
async def address(openssl: Openssl) -> AsyncIterator[str]:
    """A vCenter without a table [ca]."""
    files = openssl.identity("center", SERVER, "serverAuth")
    config = Config(listen=("127.0.0.1:0",), tls=files, store="memory", drain_seconds=0.0)
    async with VCenter(config, MemoryStore(), SystemClock()).running() as center:
        yield f"127.0.0.1:{center.ports[0]}"


async def test_they_say_who_calls_and_who_answers(openssl: Openssl, address: str) -> None:
    admin = tls.read(openssl.identity("ada", "URI:spiffe://local/operator/ada/admin"))
    async with rpc.channel(address, admin) as channel:
        request = inventory_pb2.PutTenantRequest(tenant=Tenant(tenant_id="blue"))
        await inventory.InventoryStub(channel).PutTenant(request, timeout=20)
        invite = enrolment_pb2_grpc.EnrolmentStub(channel).Invite
        call = invite(enrolment_pb2.InviteRequest(identity="vserver/h1"), timeout=20)
        assert (await refusal_of(call)).reason is Reason.NO_CA, "that is the other CA's to do"


async def test_who_is_no_vcenter_of_the_domain_serves_nobody(
    openssl: Openssl, address: str, tmp_path: Path
) -> None:
    """Signed by the same CA, for another domain's name: a client hangs up."""
    elsewhere = tls.read(openssl.identity("eve", "URI:spiffe://elsewhere/operator/eve/admin"))
    async with rpc.channel(address, elsewhere) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            request = inventory_pb2.ListTenantsRequest()
            await inventory.InventoryStub(channel).ListTenants(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
