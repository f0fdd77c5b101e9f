"""Who is calling: one place answers, by the certificate of the caller's connection.

Where a listener was configured as plain text (loopback and unix sockets only), a metadata key says
it, and proves nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc.aio

from common.certificates import BadCertificate, Certified, certified
from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.caller import OPERATORS, SPELLINGS, Caller, Role, parse_caller
from common.model.trust import Certificate
from common.rpc import IDENTITY_KEY
from vcenter.core.enrolment import has_another, refuse_if_revoked
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger
from vcenter.wire.vouched import Vouched

__all__ = ["OPERATORS", "Caller", "Callers", "Context", "Role"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Metadata: TypeAlias = Mapping[str, str | bytes]


def metadata_of(context: Context) -> Metadata:
    """What the caller said beside its request. It costs as much as a look-up, so read it once."""
    return dict(context.invocation_metadata() or ())


class Cut:
    """Why a stream's task was cancelled, if we did it."""

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.refusal: Refusal | None = None

    def off(self, refusal: Refusal) -> None:
        if self.task is not None and self.refusal is None:
            self.refusal = refusal
            self.task.cancel()

    def cancelled(self) -> bool:
        """Whether it was us; then the task may go on, to say why."""
        if self.refusal is None or self.task is None:
            return False
        self.task.uncancel()
        return True


class Callers:
    """What a connection's certificate said is kept, so that each call costs a look-up only.

    `tls`: whether any listener speaks it. Where one does, every call's connection is asked for its
    certificate: nothing else that a call shows says by which listener it came.
    """

    def __init__(
        self, domain: str, ledger: Ledger, clock: Clock, vouched: Vouched, tls: bool
    ) -> None:
        self._domain = domain
        self._tls = tls
        self._vouched = vouched
        self._table = ledger.table
        self._clock = clock
        self._streams: dict[str, set[tuple[Certified, Cut]]] = {}  # by serial number
        ledger.feed.listen(self._committed, Certificate)

    def of(self, context: Context, said: Metadata) -> Caller:
        """Raises `Refusal(UNIDENTIFIED)`, or REVOKED. What the body says of the caller is never
        asked (I9). A neighbour may call on behalf of another caller (`vouched`)."""
        known = self._connected(context, said) if self._tls else _in_plain_text(context, said)
        if known.role is not Role.DOMAIN:
            return known
        return self._vouched.caller(known, said)

    def _connected(self, context: Context, said: Metadata) -> Caller:
        """Whose connection it is."""
        holder = self._holder(context)
        if holder is None:
            return _in_plain_text(context, said)
        if holder.domain != self._domain:
            text = f"the certificate is for domain {holder.domain!r}; this is {self._domain!r}"
            raise Refusal(Reason.UNIDENTIFIED, text)
        if not holder.valid_at(self._clock.now_ms()):  # as it was when they connected
            raise _expired(holder)
        refuse_if_revoked(self._table, holder.caller)
        return holder.caller

    @contextmanager
    def stream(self, context: Context) -> Iterator[Cut]:
        """For as long as a stream lasts: it is cut when its caller's certificate is revoked, or
        expires without having been renewed."""
        cut, holder = Cut(asyncio.current_task()), self._holder(context)
        if holder is None:
            yield cut
            return
        entry = (holder, cut)
        self._streams.setdefault(holder.serial, set()).add(entry)
        try:
            yield cut
        finally:
            of_serial = self._streams[holder.serial]
            of_serial.discard(entry)
            if not of_serial:
                del self._streams[holder.serial]

    def expire(self) -> None:
        """Cut the streams of those who have not renewed in time; call it every few seconds."""
        now_ms = self._clock.now_ms()
        for entries in list(self._streams.values()):
            for holder, cut in list(entries):
                late = not holder.valid_at(now_ms)
                if late and not has_another(self._table, holder.caller, now_ms):
                    cut.off(_expired(holder))

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            if isinstance(change.after, Certificate) and change.after.revoked_ms:
                for holder, cut in list(self._streams.get(change.after.serial, ())):
                    text = f"certificate {holder.serial} of {holder.caller} was revoked"
                    cut.off(Refusal(Reason.REVOKED, text))

    def _holder(self, context: Context) -> Certified | None:
        """Signed by our CA, and the caller has its key: TLS saw to both when they connected."""
        for pem in context.auth_context().get("x509_pem_cert", ()):  # one, where there is TLS
            return _read(pem)
        return None


def _expired(holder: Certified) -> Refusal:
    text = f"the certificate of {holder.caller} has expired; connect with a renewed one"
    return Refusal(Reason.UNIDENTIFIED, text)


@lru_cache(maxsize=16_384)
def _read(pem: bytes) -> Certified:
    try:
        return certified(pem)
    except BadCertificate as error:
        raise Refusal(Reason.UNIDENTIFIED, str(error)) from None


def _in_plain_text(context: Context, said: Metadata) -> Caller:
    if not _is_near(context.peer()):
        raise Refusal(Reason.UNIDENTIFIED, "identity in plain text is for loopback alone")
    return _said(str(said.get(IDENTITY_KEY, "")))


@lru_cache(maxsize=4096)
def _said(text: str) -> Caller:
    try:
        return parse_caller(text)
    except ValueError:
        text = f"send {IDENTITY_KEY}: {SPELLINGS}; not {text[:100]!r}"
        raise Refusal(Reason.UNIDENTIFIED, text) from None


@lru_cache(maxsize=4096)
def _is_near(peer: str) -> bool:
    """gRPC's own words for a peer: `unix:…`, `ipv4:10.0.0.1:1234`, `ipv6:%5B::1%5D:1234`."""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "unix":
        return True
    try:
        return ipaddress.ip_address(rest.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False
