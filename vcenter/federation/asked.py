"""A parent: nothing is kept of it; it is asked when a question comes that nobody here answers."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from common.pb.vsignal.v1 import directory_pb2_grpc, types_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.federation.neighbour import CALL_WITHIN, Neighbour


class Asked(Neighbour):
    async def lookup(
        self, keys: Sequence[types_pb2.VmKey], asked: Sequence[str]
    ) -> Sequence[pb.LookupResult] | None:
        """One result a key, in order; None: it could not be asked."""
        request = pb.LookupRequest(keys=keys, asked=asked)
        try:
            stub = directory_pb2_grpc.DirectoryStub(self.channel)
            answer = await stub.Lookup(request, metadata=self.identity, timeout=CALL_WITHIN)
        except grpc.aio.AioRpcError as error:
            self.lost(f"{error.code().name}: {error.details()}")
            return None
        self.heard()
        return answer.results
