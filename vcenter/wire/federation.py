"""Federation: the domains that this one knows of, and moves between them."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import TELLS
from common.codec.telling import from_told
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import federation_pb2_grpc
from vcenter.wire.caller import Caller, Role
from vcenter.wire.context import Servicer
from vcenter.wire.guard import unary

MAX_ASKED = 1000


class FederationService(Servicer, federation_pb2_grpc.FederationServicer):
    service = "Federation"

    @unary
    async def ListDomains(
        self, request: pb.ListDomainsRequest, caller: Caller
    ) -> pb.ListDomainsResponse:
        check = Checker()
        check.at_most("asked", len(request.asked), MAX_ASKED)
        check.done()
        domain = await self.parts.federation.describe(request.tree, request.asked)
        for other in domain.domains:  # what the others may learn is not a neighbour's to know
            if caller.role is not Role.DOMAIN or other.name == caller.name:
                self._say_what_it_is_told(other)
        if caller.tenants is not None:
            self._count_only_what_is_shown(domain, caller.tenants)
        return pb.ListDomainsResponse(domain=domain)

    def _say_what_it_is_told(self, neighbour: pb.Domain) -> None:
        told = self.parts.tellings.of(neighbour.name)
        neighbour.tells = TELLS.to(told.tells)
        neighbour.tenants[:] = told.tenants
        neighbour.tells_by_command = told.by_command

    def _count_only_what_is_shown(self, domain: pb.Domain, tenants: frozenset[str]) -> None:
        """To who is told less, other domains' counts are not told at all."""
        shown = self.table.vms.states(lambda kind: kind.tenant in tenants)
        domain.vms = sum(shown.values())
        domain.servers = domain.servers if tenants else 0
        for other in domain.domains:
            _uncounted(other)

    @unary
    async def Tell(self, request: pb.TellRequest, caller: Caller) -> pb.TellResponse:
        check = Checker()
        as_configured = request.tells == pb.TELLING_UNSPECIFIED
        if as_configured:
            check.require(not request.tenants, "tenants", "not with what is configured")
        telling = None if as_configured else from_told(check, request, by_command=True)
        check.done()
        told = await self.parts.tellings.tell(telling, request.domain)
        described = await self.parts.federation.describe(tree=False, asked=())
        neighbour = next(d for d in described.domains if d.name == told.domain)
        self._say_what_it_is_told(neighbour)
        return pb.TellResponse(domain=neighbour)

    @unary
    async def Members(self, request: pb.MembersRequest, caller: Caller) -> pb.MembersResponse:
        if caller.tenants is not None:
            shown = [n for n in request.networks if n.tenant in caller.tenants]
            del request.networks[:]
            request.networks.extend(shown)
        return await self.parts.spanning.answer(request)

    @unary
    async def Twins(self, request: pb.TwinsRequest, caller: Caller) -> pb.TwinsResponse:
        """Who may not learn everything learns nothing of what others hold."""
        told = "" if caller.tenants is not None else caller.name
        return await self.parts.federation.warnings.answer(told, request.heard)

    @unary
    async def PlanArrivals(
        self, request: pb.PlanArrivalsRequest, caller: Caller
    ) -> pb.PlanArrivalsResponse:
        return self.parts.receiver.plan(request, caller)

    @unary
    async def Carry(self, request: pb.CarryRequest, caller: Caller) -> pb.CarryResponse:
        return await self.parts.receiver.carry(request, caller)


def _uncounted(domain: pb.Domain) -> None:
    domain.ClearField("vms")
    domain.ClearField("servers")
    for inner in domain.domains:
        _uncounted(inner)
