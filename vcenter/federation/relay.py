"""Operations anywhere (A20): a call about what another domain owns is passed on to its vCenter.

Which domain that is follows from the request: from the VM, vServer or operation that it names; or
the caller says it (`vsignal-domain`). A call that has been passed on names its domain, and the
domains that it came by, so that it never goes in circles.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from common import rpc
from common.errors import Reason, Refusal
from common.model.caller import Caller, Role
from common.status import refusal_from_call
from vcenter.federation.homes import Homes
from vcenter.federation.neighbour import Neighbour

PACKAGE = "vsignal.v1"


class Passage:
    """One call on its way to another domain. `left`: seconds that the caller waits; None: any."""

    def __init__(
        self,
        method: str,
        domain: str,
        neighbour: Neighbour,
        metadata: rpc.Metadata,
        left: float | None,
        homes: Homes,
    ) -> None:
        self._method = method
        self._domain = domain
        self._neighbour = neighbour
        self._metadata = metadata
        self._left = left
        self._homes = homes

    async def ask(self, request: Any) -> Any:
        """The answer, as the owner gave it. Raises the owner's `Refusal`, or DOMAIN_UNREACHABLE."""
        if hasattr(request, "__aiter__"):
            raise _not_passed_on(self._method)
        channel, (write, read) = self._neighbour.channel, _codec(self._method, request)
        call = channel.unary_unary(_path(self._method), write, read)
        try:
            answer = await call(request, metadata=self._metadata, timeout=self._left)
        except grpc.aio.AioRpcError as error:
            raise self._refused(error) from error
        self._homes.answered(self._domain, answer)
        return answer

    async def follow(self, request: Any) -> AsyncIterator[Any]:
        """The same of a stream of answers."""
        if hasattr(request, "__aiter__"):
            raise _not_passed_on(self._method)
        channel, (write, read) = self._neighbour.channel, _codec(self._method, request)
        method = channel.unary_stream(_path(self._method), write, read)
        call = method(request, metadata=self._metadata, timeout=self._left)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._refused(error) from error
        finally:
            call.cancel()

    def _refused(self, error: grpc.aio.AioRpcError) -> Refusal:
        return refused_by(self._domain, error)


class Relay:
    """`own` is this domain's name."""

    def __init__(self, own: str, homes: Homes) -> None:
        self._own = own
        self._homes = homes

    def is_ours(self, caller: Caller, said: Mapping[str, str | bytes]) -> bool:
        """Certainly, whatever the request names. Hosts and vCenters mean us by what they ask of us;
        and who has no neighbours is asked for other domains by name only."""
        if not self._homes.others and rpc.DOMAIN_KEY not in said:
            return True
        return caller.role in (Role.VSERVER, Role.VCENTER, Role.DOMAIN)

    async def passage(
        self,
        method: str,
        request: Any,
        caller: Caller,
        said: Mapping[str, str | bytes],
        left: float | None,
    ) -> Passage | None:
        """None: it is for us to carry out. `left`: seconds that the caller waits; None: any.

        Raises `Refusal`: there is no way to where it should be carried out.
        """
        domain = str(said.get(rpc.DOMAIN_KEY, "")) or await self._homes.of(request, caller)
        if domain in ("", self._own):
            return None
        via = (*caller.via, self._own)
        neighbour = await self._homes.towards(domain, via)
        metadata = on_behalf(neighbour, domain, caller.path, via)
        return Passage(method, domain, neighbour, metadata, left, self._homes)


def refused_by(domain: str, error: grpc.aio.AioRpcError) -> Refusal:
    """What the domain's vCenter said, or that it could not be asked."""
    refusal = refusal_from_call(error)
    if refusal is None:
        said = f"{error.code().name}: {error.details()}"
        refusal = Refusal(Reason.DOMAIN_UNREACHABLE, f"domain {domain}: {said}")
    refusal.evidence.setdefault("domain", domain)
    return refusal


def on_behalf(neighbour: Neighbour, domain: str, caller: str, via: tuple[str, ...]) -> rpc.Metadata:
    """What says for whom the neighbour is asked, by which way the question came, and whom it is
    for. `caller`: its path."""
    return (
        *neighbour.identity,
        *rpc.addressed(domain),
        (rpc.CALLER_KEY, caller),
        (rpc.ASKED_KEY, ",".join(via)),
    )


def _not_passed_on(method: str) -> Refusal:
    return Refusal(Reason.NOT_PASSED_ON, f"{method} is a stream from the caller")


def _path(method: str) -> str:
    return f"/{PACKAGE}.{method}"


def _codec(method: str, request: Any) -> tuple[Any, Any]:
    """How to write the request and to read the answer; a method that takes bytes gives bytes."""
    if isinstance(request, bytes):
        return None, None
    answer = message_factory.GetMessageClass(_described(method).output_type)
    return type(request).SerializeToString, answer.FromString


def _described(method: str) -> MethodDescriptor:
    service, _, name = method.partition("/")
    pool: Any = descriptor_pool.Default()
    found: MethodDescriptor = pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(name)
    return found
