"""The channel to a vCenter: whose identity is the connection's, deadlines, lists page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import grpc

from common import rpc
from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    enrolment_pb2_grpc,
    federation_pb2_grpc,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2_grpc,
    types_pb2,
)
from common.tls import Bundle

CALL_TIMEOUT = 30.0  # seconds for a call that does not wait for anything
PAGE_SIZE = 500  # of 1000 that are allowed: VMs with long profiles must fit into one message

Q = TypeVar("Q")
R = TypeVar("R")


class Client:
    """A vCenter, as one caller sees it. Raises grpc.RpcError."""

    def __init__(
        self, target: str, who: Bundle | str, timeout: float | None, domain: str = ""
    ) -> None:
        """`who`: a certificate; or only what to say, in plain text (ValueError if not local).
        `domain`: which is to carry everything out, if not the one that owns what is named."""
        self._channel = rpc.blocking_channel(target, None if isinstance(who, str) else who)
        said = rpc.identity(who) if isinstance(who, str) else ()
        self._metadata = (*said, *(rpc.addressed(domain) if domain else ()))
        self._timeout = timeout or CALL_TIMEOUT
        self.signaling = signaling_pb2_grpc.SignalingStub(self._channel)
        self.directory = directory_pb2_grpc.DirectoryStub(self._channel)
        self.federation = federation_pb2_grpc.FederationStub(self._channel)
        self.inventory = inventory_pb2_grpc.InventoryStub(self._channel)
        self.operations = operations_pb2_grpc.OperationsStub(self._channel)
        self.enrolment = enrolment_pb2_grpc.EnrolmentStub(self._channel)

    def close(self) -> None:
        """Ends every call that is under way."""
        self._channel.close()

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, timeout: float | None = None
    ) -> R:
        """One request, one answer."""
        return method(request, timeout=timeout or self._timeout, metadata=self._metadata)

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Q, R], request: Q, timeout: float | None
    ) -> Iterator[R]:
        """One request, many answers; `timeout` None = as long as it takes."""
        return method(request, timeout=timeout, metadata=self._metadata)

    def vms(self, request: directory_pb2.ListVmsRequest) -> Iterator[types_pb2.VmRecord]:
        """Every VM that the request selects, over all pages."""
        page = directory_pb2.ListVmsRequest(page_size=PAGE_SIZE)
        page.MergeFrom(request)
        while True:
            answer = self.call(self.directory.ListVms, page)
            yield from answer.records
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token

    def servers(
        self, request: directory_pb2.ListServersRequest
    ) -> Iterator[directory_pb2.ServerLoad]:
        """Every vServer that the request selects, over all pages."""
        page = directory_pb2.ListServersRequest(page_size=PAGE_SIZE)
        page.MergeFrom(request)
        while True:
            answer = self.call(self.directory.ListServers, page)
            yield from answer.servers
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token

    def list_operations(
        self, request: operations_pb2.ListOperationsRequest, limit: int
    ) -> Iterator[operations_pb2.Operation]:
        """The newest `limit` operations that the request selects; 0 = all."""
        page = operations_pb2.ListOperationsRequest(page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        page.MergeFrom(request)
        sent = 0
        while True:
            answer = self.call(self.operations.List, page)
            for operation in answer.operations:
                yield operation
                sent += 1
                if sent == limit:
                    return
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token
