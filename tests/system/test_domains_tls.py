"""Two domains, each with a CA of its own, that call each other over mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from common import rpc
from common.clock import SystemClock
from common.errors import Reason
from common.pb.vsignal.v1 import (
    enrolment_pb2,
    enrolment_pb2_grpc,
    federation_pb2,
    federation_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
)
from common.tls import Bundle, TlsSettings
from tests.support.calls import TIMEOUT_S, refusal_of
from tests.support.country import soon
from tests.support.domain import Ca
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.federation.settings import DomainSettings
from vcenter.store.memory import MemoryStore

EAST, CENTER = Ca("east"), Ca("center")


def files(folder: Path, name: str, bundle: Bundle) -> TlsSettings:
    identity, ca = folder / f"{name}.pem", folder / f"{name}-ca.pem"
    identity.write_bytes(bundle.key + bundle.chain)
    identity.chmod(0o600)
    ca.write_bytes(bundle.ca)
    return TlsSettings(identity=identity, ca=ca)


@asynccontextmanager
async def running(
    folder: Path, ca: Ca, name: str, *domains: DomainSettings
) -> AsyncIterator[VCenter]:
    config = Config(
        domain=name,
        listen=("127.0.0.1:0",),
        tls=files(folder, name, ca.bundle(f"vcenter/{name}")),
        domains=domains,
        store="memory",
        drain_seconds=0.0,
        bookmark_seconds=0.1,
    )
    async with VCenter(config, MemoryStore(), SystemClock()).running() as center:
        yield center


def parent(folder: Path) -> DomainSettings:
    """The center, as the east has it configured; it need not be reached for this."""
    tls = files(folder, "east-at-center", CENTER.bundle("domain/east"))
    return DomainSettings(name="center", address="127.0.0.1:1", relation="parent", tls=tls)


def child(folder: Path, east: VCenter, shown: Bundle) -> DomainSettings:
    address = f"127.0.0.1:{east.ports[0]}"
    tls = files(folder, "center-at-east", shown)
    return DomainSettings(name="east", address=address, relation="child", tls=tls)


async def put_tenant(center: VCenter, name: str) -> None:
    """In the east, asked of the center by an operator of the center's."""
    request = inventory_pb2.PutTenantRequest()
    request.tenant.tenant_id = name
    bundle = CENTER.bundle("operator/anna/admin")
    async with rpc.channel(f"127.0.0.1:{center.ports[0]}", bundle) as channel:
        stub = inventory_pb2_grpc.InventoryStub(channel)
        await stub.PutTenant(request, metadata=rpc.addressed("east"), timeout=TIMEOUT_S)


async def state_of_east(center: VCenter) -> federation_pb2.Domain:
    bundle = CENTER.bundle("operator/anna/view")
    async with rpc.channel(f"127.0.0.1:{center.ports[0]}", bundle) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        answer = await stub.ListDomains(federation_pb2.ListDomainsRequest(), timeout=TIMEOUT_S)
        return answer.domain.domains[0]


async def test_a_certificate_of_the_other_domain_opens_the_way(tmp_path: Path) -> None:
    """The center shows what the east's CA has given it; its operator is believed on its word."""
    async with running(tmp_path, EAST, "east", parent(tmp_path)) as east:
        there = child(tmp_path, east, EAST.bundle("domain/center"))
        async with running(tmp_path, CENTER, "center", there) as center:

            async def current() -> bool:
                state = (await state_of_east(center)).state
                return state == federation_pb2.DOMAIN_STATE_CURRENT

            await soon(current)
            await put_tenant(center, "blue")
            assert east.ledger.table.tenant("blue") is not None
            assert center.ledger.table.tenant("blue") is None


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("domain/mars", Reason.FORBIDDEN),  # of the east's CA, and no neighbour of the east's
        ("operator/eve/admin", None),  # is itself, whatever it says of others
    ],
)
async def test_a_certificate_is_worth_what_it_names(
    tmp_path: Path, who: str, reason: Reason | None
) -> None:
    async with running(tmp_path, EAST, "east", parent(tmp_path)) as east:
        there = child(tmp_path, east, EAST.bundle(who))
        async with running(tmp_path, CENTER, "center", there) as center:
            if reason is None:
                await put_tenant(center, "blue")
                await east.ledger.audit.flush()
                entries, _ = east.ledger.audit.journal.read(0, lambda _: True, 10)
                assert {entry.who for entry in entries} == {"operator/eve"}
            else:
                assert (await refusal_of(put_tenant(center, "blue"))).reason is reason
                assert east.ledger.table.tenant("blue") is None


async def test_another_ca_is_not_believed(tmp_path: Path) -> None:
    async with running(tmp_path, EAST, "east", parent(tmp_path)) as east:
        there = child(tmp_path, east, CENTER.bundle("domain/center"))
        async with running(tmp_path, CENTER, "center", there) as center:
            refused = await refusal_of(put_tenant(center, "blue"))
            assert refused.reason is Reason.DOMAIN_UNREACHABLE
            assert east.ledger.table.tenant("blue") is None


async def test_a_neighbour_whose_certificate_is_revoked_is_cut_off_within_5_s(
    tmp_path: Path,
) -> None:
    """The stream on which it follows the ledger, and whatever it asks from then on."""
    async with running(tmp_path, EAST, "east", parent(tmp_path)) as east:
        shown = EAST.bundle("domain/center")
        there = child(tmp_path, east, shown)
        async with running(tmp_path, CENTER, "center", there) as center:

            async def is_in(state: federation_pb2.DomainState.ValueType) -> bool:
                return (await state_of_east(center)).state == state

            await soon(partial(is_in, federation_pb2.DOMAIN_STATE_CURRENT))
            bundle = EAST.bundle("operator/ada/admin")
            async with rpc.channel(f"127.0.0.1:{east.ports[0]}", bundle) as channel:
                revoke = enrolment_pb2_grpc.EnrolmentStub(channel).Revoke
                await revoke(
                    enrolment_pb2.RevokeRequest(serial=shown.certified.serial), timeout=TIMEOUT_S
                )
            async with asyncio.timeout(5):
                await soon(partial(is_in, federation_pb2.DOMAIN_STATE_STALE))
            assert (await refusal_of(put_tenant(center, "blue"))).reason is Reason.REVOKED
            assert east.ledger.table.tenant("blue") is None
            assert not await is_in(federation_pb2.DOMAIN_STATE_CURRENT)
