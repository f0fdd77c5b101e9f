"""A parent: nothing is kept of it; it is asked when a question comes that nobody here answers."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from common.pb.vsignal.v1 import signaling_pb2, types_pb2
from vcenter.federation.neighbour import Neighbour


class Asked(Neighbour):
    async def lookup(
        self, keys: Sequence[types_pb2.VmKey], asked: Sequence[str]
    ) -> Sequence[signaling_pb2.LookupResult]:
        """Whether it answers is all that is known of its state."""
        try:
            results = await super().lookup(keys, asked)
        except grpc.aio.AioRpcError as error:
            self.lost(f"{error.code().name}: {error.details()}")
            raise
        self.heard()
        return results
