"""Callers with the wrong certificate: another CA's, expired, revoked, or none at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import grpc

from common import certificates, rpc, tls
from common.clock import SystemClock
from common.errors import Reason
from common.model.caller import parse_caller
from common.pb.vsignal.v1 import enrolment_pb2, enrolment_pb2_grpc, signaling_pb2_grpc
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.status import refusal_from_call
from common.tls import Bundle
from deploy.domain import Domain
from deploy.faults.attacks import Target, all_of
from vcenter.ca import authority
from vcenter.ca.authority import Authority

WHO = "operator/mallory/admin"
AT_A_TIME = 20
WITHIN_S = 20.0
LIFE = timedelta(minutes=1)
AGO_MS = 180_000
Make = Callable[[], grpc.ChannelCredentials]


class LetIn(Exception):
    """Somebody was served who must not be, or was refused in a way that tells nothing."""


async def wrong_certificates(target: Target, count: int) -> int:
    """Raises `LetIn`."""
    await Impostors(target.domain).attack(target.address, count)
    return count


class Impostors:
    """Each attempt has a key and a certificate of its own; the revoked one is one."""

    def __init__(self, domain: Domain) -> None:
        self._own = authority.read(domain.name, domain.folder / "ca.pem", domain.folder / "ca.key")
        self._name = tls.vcenter_name(domain.name)
        self._foreign = authority.create(domain.name, SystemClock().now_ms())
        self._operator = domain.operator
        self._revoked = self._certified(self._own)

    async def attack(self, address: str, count: int) -> None:
        """Raises `LetIn`."""
        await self._revoke(address)
        kinds: dict[str, Make] = {
            "another CA": lambda: self._credentials(self._foreign),
            "expired": lambda: self._credentials(self._own, AGO_MS),
            "revoked": lambda: tls.channel_credentials(self._revoked),
            "none": lambda: grpc.ssl_channel_credentials(self._own.pem),
        }
        wrong = itertools.islice(itertools.cycle(kinds.items()), count)
        await all_of((self._attempt(address, kind, make()) for kind, make in wrong), AT_A_TIME)

    async def _attempt(self, address: str, kind: str, credentials: grpc.ChannelCredentials) -> None:
        options = [*rpc.CLIENT_OPTIONS, rpc.demand(self._name)]
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            lookup = signaling_pb2_grpc.SignalingStub(channel).Lookup
            try:
                # A busy machine's handshake may take too long, which must not count as a refusal.
                is_slow = kind == "revoked"
                await lookup(pb.LookupRequest(), timeout=WITHIN_S, wait_for_ready=is_slow)
            except grpc.aio.AioRpcError as error:
                if not _is_right(kind, error):
                    raise LetIn(f"{kind}: {error.code().name}: {error.details()}") from error
                return
        raise LetIn(kind)

    async def _revoke(self, address: str) -> None:
        async with rpc.channel(address, self._operator) as channel:
            request = enrolment_pb2.RevokeRequest(serial=self._revoked.certified.serial)
            await enrolment_pb2_grpc.EnrolmentStub(channel).Revoke(request, timeout=WITHIN_S)

    def _credentials(self, ca: Authority, ago_ms: int = 0) -> grpc.ChannelCredentials:
        return tls.channel_credentials(self._certified(ca, ago_ms))

    def _certified(self, ca: Authority, ago_ms: int = 0) -> Bundle:
        """Of a client that believes our CA, whoever has signed for it."""
        key, now_ms = certificates.new_key(), SystemClock().now_ms() - ago_ms
        caller, serial = parse_caller(WHO), authority.new_serial()
        life = LIFE if ago_ms else timedelta(hours=1)
        signed = ca.sign(key.public_key(), caller, serial, now_ms, life)
        made = tls.bundle(certificates.key_pem(key) + signed, ca.pem)
        return replace(made, ca=self._own.pem)


def _is_right(kind: str, error: grpc.aio.AioRpcError) -> bool:
    """The handshake refuses all but the revoked one, whose signature holds."""
    if kind != "revoked":
        return error.code() is grpc.StatusCode.UNAVAILABLE
    refusal = refusal_from_call(error)
    return refusal is not None and refusal.reason is Reason.REVOKED
