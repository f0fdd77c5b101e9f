"""The way in: every method of every service goes through `unary` or `streaming`.

They find out who calls, whether they may, and turn a `Refusal` into `google.rpc.Status`. Anything
else that is raised is a defect: it is logged with its traceback, and the caller hears INTERNAL
without details.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import structlog
from grpc_status import rpc_status

from common.errors import Refusal
from common.status import refusal_to_status
from vcenter.wire.caller import Caller, Context, TrustedNetwork, caller_of
from vcenter.wire.rules import authorize

log = structlog.get_logger()
T = TypeVar("T")


class Service(Protocol):
    service: str
    trusted: tuple[TrustedNetwork, ...]


def _admit(servicer: Service, name: str, context: Context) -> Caller:
    caller = caller_of(context, servicer.trusted)
    authorize(f"{servicer.service}/{name}", caller)
    return caller


async def _refuse(context: Context, name: str, error: Exception) -> None:
    if isinstance(error, Refusal):
        status = rpc_status.to_status(refusal_to_status(error))
        await context.abort_with_status(status)
    log.error("call failed", method=name, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, "a defect in the vCenter; its log has the details"
    )


def unary(handler: Callable[[Any, Any, Caller], Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """`handler(self, request, caller)`, or `(self, request_iterator, caller)`."""

    @functools.wraps(handler)
    async def call(self: Any, request: Any, context: Context) -> T:
        try:
            return await handler(self, request, _admit(self, handler.__name__, context))
        except Exception as error:
            await _refuse(context, handler.__name__, error)
            raise AssertionError("abort returns never") from error

    return call


def streaming(
    handler: Callable[[Any, Any, Caller], AsyncIterator[T]],
) -> Callable[..., AsyncIterator[T]]:
    """The same for a stream of replies; the handler's generator is closed with the call."""

    @functools.wraps(handler)
    async def call(self: Any, request: Any, context: Context) -> AsyncIterator[T]:
        replies: AsyncIterator[T] | None = None
        try:
            replies = handler(self, request, _admit(self, handler.__name__, context))
            async for reply in replies:
                yield reply
        except Exception as error:  # noqa: BLE001 - the boundary: all of them become a status
            await _refuse(context, handler.__name__, error)
        finally:
            if replies is not None:
                await replies.aclose()  # type: ignore[attr-defined]

    return call
