"""Several vCenters that know of each other: east and west, and the center above them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.lab import Lab, running_lab
from tests.support.nouns import by_id, vm

SOON_S = 60.0  # on a machine that does much else


async def soon(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await holds():  # noqa: ASYNC110 - a try need not be a call, and nothing rings
            await asyncio.sleep(0)


def neighbour(lab: Lab, name: str, relation: str) -> dict[str, str]:
    return {"name": name, "relation": relation, "address": f"unix:{lab.folder}/vcenter.sock"}


async def find(lab: Lab, key: types.VmKey) -> signaling_pb2.LookupResult:
    answer = await lab.operator.directory.Lookup(signaling_pb2.LookupRequest(keys=[key]))
    return answer.results[0]


async def domain(lab: Lab, name: str, *, tree: bool = False) -> pb.Domain:
    answer = await lab.operator.federation.ListDomains(pb.ListDomainsRequest(tree=tree))
    return next(d for d in answer.domain.domains if d.name == name)


class Country:
    """East and west, and the center above them."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def up(self) -> None:
        self.east = await self.lab("east")
        self.west = await self.lab("west")
        children = (neighbour(self.east, "east", "child"), neighbour(self.west, "west", "child"))
        self.center = await self.lab("center", *children)
        for lab in (self.east, self.west):
            await lab.reconfigure(domains=(neighbour(self.center, "center", "parent"),))

    async def lab(self, name: str, *domains: dict[str, str]) -> Lab:
        lab = running_lab(domain=name, domains=domains, bookmark_seconds=0.1)
        return await self._stack.enter_async_context(lab)


@asynccontextmanager
async def running_country() -> AsyncIterator[Country]:
    async with AsyncExitStack() as stack:
        country = Country(stack)
        await country.up()
        yield country


async def registered(country: Country) -> None:
    """VM 1 is in the east, and the center has heard of it."""
    await (await country.east.agent("e1")).register(vm(1))
    await soon(lambda: found_at(country.center, "east"))


async def found_at(lab: Lab, authority: str, number: int = 1) -> bool:
    result = await find(lab, by_id(number))
    return result.found and result.authority == authority
