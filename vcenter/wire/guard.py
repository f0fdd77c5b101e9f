"""The way in: every method of every service goes through `unary` or `streaming`.

They find out who calls, whether they may, and turn a `Refusal` into `google.rpc.Status`. Anything
else that is raised is a defect: it is logged with its traceback, and the caller hears INTERNAL
without details.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.status import refusal_to_status
from vcenter.audit import Audit, Origin, origin
from vcenter.federation.relay import Passage, Relay
from vcenter.wire.caller import Callers, Context, Cut, Metadata, metadata_of
from vcenter.wire.limits import Account, CallLimits
from vcenter.wire.rules import CHANGING, Rule, RulesOf
from vcenter.wire.shown import Shown
from vcenter.wire.sight import told

log = structlog.get_logger()
T = TypeVar("T")


_DEFECT = Status(
    code=grpc.StatusCode.INTERNAL.value[0],
    message="a defect in the vCenter; its log has the details",
)


class Malformed:
    """Stands for bytes that are no message of the method's."""


class Service(Protocol):
    service: str
    callers: Callers
    audit: Audit
    limits: CallLimits
    shown: Shown
    relay: Relay


def _admit(servicer: Service, rule: Rule, context: Context, said: Metadata) -> Caller:
    """Who calls; from here on `origin` says it, too, for what changes something."""
    caller = servicer.callers.of(context, said)
    if rule.changes:
        origin.set(Origin(str(caller), context.peer()))
    rule.authorize(caller)
    return servicer.shown.to(caller, rule.method)


async def _passage(
    servicer: Service, name: str, request: Any, caller: Caller, context: Context, said: Metadata
) -> Passage | None:
    """The way to the domain that the call is for; None: it is ours. To be asked where that is not
    certain (`is_ours`)."""
    method, left = f"{servicer.service}/{name}", context.time_remaining()
    return await servicer.relay.passage(method, request, caller, said, left)


def _refused(
    servicer: Service,
    request: object,
    context: Context,
    name: str,
    error: Exception,
    caller: Caller | None,
) -> grpc.Status:
    """How the call is to be aborted. gRPC keeps what aborted a call, with all that its traceback
    leads to, until the garbage collector comes, which is many calls later. So `error` is stripped
    here, and who aborts lets go of the request first."""
    try:
        if not isinstance(error, Refusal):
            log.error("call failed", method=name, exc_info=error)
            return _on_the_wire(_DEFECT)
        if f"{servicer.service}/{name}" in CHANGING:
            known = origin.get()
            by = known if known.peer else Origin("unidentified", context.peer())
            servicer.audit.refused(request, name, error, by)
        heard = told(caller, error) if caller is not None else error
        return _on_the_wire(refusal_to_status(heard))
    finally:
        error.__traceback__ = error.__context__ = error.__cause__ = None


def _on_the_wire(said: Status) -> grpc.Status:
    status: grpc.Status = rpc_status.to_status(said)
    return status


def _well_formed(request: Any) -> Any:
    """Raises `Refusal(INVALID_FIELD)`."""
    if request is Malformed:
        raise Refusal(Reason.INVALID_FIELD, "the bytes are no message of this method")
    return request


def _on_account(request: Any, account: Account) -> Any:
    """The request, or the stream of them, at its sender's expense. Raises as `_well_formed` does,
    or the stream does."""
    if isinstance(request, bytes):
        account.charge(len(request))
        return request
    if isinstance(request, AsyncIterator):
        return _each_on_account(request, account)
    account.charge(_size(_well_formed(request)))
    return request


async def _each_on_account(requests: AsyncIterator[Any], account: Account) -> AsyncIterator[Any]:
    async for request in requests:
        await account.pace(_size(_well_formed(request)))
        yield request


def _size(request: Any) -> int:
    return len(request) if isinstance(request, bytes) else int(request.ByteSize())


def unary(handler: Callable[[Any, Any, Caller], Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """`handler(self, request, caller)`, or `(self, request_iterator, caller)`; or the vCenter of
    another domain, where the call is for that."""

    rules = RulesOf(handler.__name__)

    @functools.wraps(handler)
    async def call(self: Any, request: Any, context: Context) -> T:
        caller: Caller | None = None
        account: Account | None = None
        try:
            said = metadata_of(context)
            caller = _admit(self, rules[self.service], context, said)
            account = self.limits.enter(caller)
            request = _on_account(request, account)
            if not self.relay.is_ours(caller, said):
                passage = await _passage(self, handler.__name__, request, caller, context, said)
                if passage is not None:
                    answer: T = await passage.ask(request)
                    return answer
            return await handler(self, request, caller)
        except Exception as error:  # noqa: BLE001 - the boundary: all of them become a status
            status = _refused(self, request, context, handler.__name__, error, caller)
            request = None
            await context.abort_with_status(status)
            raise AssertionError("abort returns never") from None
        finally:
            if account is not None:
                account.leave()

    return call


def anonymous(handler: Callable[[Any, Any], Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """`handler(self, request)` for who has no certificate yet: what it shows is in the request."""

    @functools.wraps(handler)
    async def call(self: Any, request: Any, context: Context) -> T:
        try:
            return await handler(self, _well_formed(request))
        except Exception as error:  # noqa: BLE001 - as above
            status = _refused(self, request, context, handler.__name__, error, None)
            request = None
            await context.abort_with_status(status)
            raise AssertionError("abort returns never") from None

    return call


def streaming(
    handler: Callable[[Any, Any, Caller], AsyncIterator[T]],
) -> Callable[..., AsyncIterator[T]]:
    """The same for a stream of replies; the handler's generator is closed with the call, and the
    call is ended when its caller may no longer have it."""

    rules = RulesOf(handler.__name__)

    @functools.wraps(handler)
    async def call(self: Any, request: Any, context: Context) -> AsyncIterator[T]:
        caller: Caller | None = None
        replies: AsyncIterator[T] | None = None
        cut: Cut | None = None
        account: Account | None = None
        try:
            said = metadata_of(context)
            caller = _admit(self, rules[self.service], context, said)
            account = self.limits.enter(caller)
            with self.callers.stream(context) as cut:
                request = _on_account(request, account)
                passage = None
                if not self.relay.is_ours(caller, said):
                    passage = await _passage(self, handler.__name__, request, caller, context, said)
                if passage is not None:
                    replies = passage.follow(request)
                else:
                    replies = handler(self, request, caller)
                async for reply in replies:
                    yield reply
        except asyncio.CancelledError:
            if cut is None or cut.refusal is None or not cut.cancelled():
                raise
            status = _refused(self, request, context, handler.__name__, cut.refusal, caller)
            request = None
            await context.abort_with_status(status)
        except Exception as error:  # noqa: BLE001 - as above
            status = _refused(self, request, context, handler.__name__, error, caller)
            request = None
            await context.abort_with_status(status)
        finally:
            if account is not None:
                account.leave()
            if replies is not None:
                await replies.aclose()  # type: ignore[attr-defined]

    return call
