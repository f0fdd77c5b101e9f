"""A client's certificate: taken up when its files are replaced, renewed before it runs out.

Streams that are open stay; what is said from then on, and the next stream, use the new one.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import grpc

from common import certificates, enrol, log, rpc
from common.clock import Clock
from common.errors import Reason
from common.pb.vsignal.v1 import enrolment_pb2, enrolment_pb2_grpc
from common.status import refusal_from_call
from common.tls import Bundle, Keeper, TlsError

LOOK_EVERY = 2.0  # seconds, at the files
FIRST_DELAY, LAST_DELAY = 5.0, 600.0  # between attempts that failed
WITHIN = 10.0

_log = log.get(__name__)


class Renewal:
    """`renewed` is called with every new certificate that is in use from then on."""

    def __init__(
        self,
        keeper: Keeper,
        vcenters: Sequence[str],
        renewed: Callable[[], Awaitable[None]],
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._keeper = keeper
        self._vcenters = vcenters
        self._renewed = renewed
        self._clock = clock
        self._chance = chance
        self._delay = FIRST_DELAY
        self._again = 0.0
        self._elsewhere: Bundle | None = None  # signed by a CA that is not the vCenter's

    async def run(self) -> None:
        """Cancel it to end it."""
        while True:
            await self._clock.sleep(LOOK_EVERY * self._chance.uniform(0.8, 1.2))
            try:
                if self._is_due():
                    await self._renew()
                if self._keeper.refresh():
                    current = self._keeper.current.certified
                    _log.info("certificate taken up", serial=current.serial)
                    await self._renewed()
            except (TlsError, OSError) as error:
                _log.error("the certificate in use stays", error=str(error))

    def _is_due(self) -> bool:
        current = self._keeper.current
        if current is self._elsewhere or self._clock.monotonic() < self._again:
            return False
        return current.certified.renew_at_ms() <= self._clock.now_ms()

    async def _renew(self) -> None:
        """One attempt, at each vCenter in turn."""
        for address in self._vcenters:
            try:
                await self._ask(address)
            except grpc.aio.AioRpcError as error:
                self._failed(address, error)
            except certificates.BadCertificate as error:
                _log.error("the vCenter answered with nothing usable", error=str(error))
            else:
                self._delay, self._again = FIRST_DELAY, 0.0
                return
        self._again = self._clock.monotonic() + self._delay * self._chance.uniform(0.5, 1.0)
        self._delay = min(self._delay * 2, LAST_DELAY)

    async def _ask(self, address: str) -> None:
        key = certificates.new_key()
        request = enrolment_pb2.RenewRequest(request=certificates.request_pem(key))
        async with rpc.channel(address, self._keeper.current) as channel:
            stub = enrolment_pb2_grpc.EnrolmentStub(channel)
            answer = await stub.Renew(request, timeout=WITHIN)
        enrol.keep(self._keeper.settings, certificates.key_pem(key), answer)

    def _failed(self, address: str, error: grpc.aio.AioRpcError) -> None:
        refusal = refusal_from_call(error)
        words = refusal.message if refusal else error.details()
        _log.warning("certificate not renewed", vcenter=address, error=words)
        if refusal is not None and refusal.reason is Reason.NO_CA:
            self._elsewhere = self._keeper.current  # its files are replaced by who keeps the CA
