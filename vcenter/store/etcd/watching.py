"""etcd's watch of a prefix: what is put there, from one of its revisions on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from common.pb.etcd import mvcc_pb2
from common.pb.etcd import rpc_pb2 as pb
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Client, Unreachable
from vcenter.store.etcd.layout import until


async def watched(
    client: Client, prefix: bytes, start: int, began: Callable[[Any], None] = lambda call: None
) -> AsyncIterator[mvcc_pb2.KeyValue]:
    """For ever, or until `Unreachable` or `Forgotten` is raised. `began` is handed the call, which
    may be cancelled to have the first."""
    member = client.member
    call = member.watch.Watch(metadata=etcd.WITH_A_LEADER)
    began(call)
    create = pb.WatchCreateRequest(
        key=prefix,
        range_end=until(prefix),
        start_revision=start,
        filters=[pb.WatchCreateRequest.NODELETE],
    )
    try:
        await etcd.answered(call.write(pb.WatchRequest(create_request=create)))
        while True:
            said = await etcd.answered(call.read())
            if not isinstance(said, pb.WatchResponse) or said.canceled:
                raise Unreachable("the member ended the watch")
            for event in said.events:
                yield event.kv
    except Unreachable:
        client.avoid(member)
        raise
    finally:
        call.cancel()
