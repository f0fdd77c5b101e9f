"""Federation: the domains that this one knows of, and moves between them."""

from __future__ import annotations

from common.codec.checker import Checker
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import federation_pb2_grpc
from vcenter.wire.caller import Caller
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
        return pb.ListDomainsResponse(domain=domain)

    @unary
    async def Members(self, request: pb.MembersRequest, caller: Caller) -> pb.MembersResponse:
        return await self.parts.spanning.answer(request)

    @unary
    async def PlanArrivals(
        self, request: pb.PlanArrivalsRequest, caller: Caller
    ) -> pb.PlanArrivalsResponse:
        return self.parts.receiver.plan(request, caller)

    @unary
    async def Carry(self, request: pb.CarryRequest, caller: Caller) -> pb.CarryResponse:
        return await self.parts.receiver.carry(request, caller)
