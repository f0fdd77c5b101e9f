"""Counts of VMs by state, as they change, for whom they concern."""

from __future__ import annotations

from common.pb.vsignal.v1 import directory_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import Client
from tests.support.lab import running_lab
from tests.support.nouns import vm, vm_id


async def counted(client: Client, **only: str) -> dict[str, int]:
    answer = await client.directory.CountVms(directory_pb2.CountVmsRequest(**only))
    found = {types.VmState.Name(c.state)[9:].lower(): c.vms for c in answer.states}
    assert answer.vms == sum(found.values()) and len(found) == len(types.VmState.values()) - 1
    return {state: vms for state, vms in found.items() if vms}


async def test_counts_follow_registrations_states_and_removals() -> None:
    async with running_lab() as lab:
        one, two = await lab.agent("host-1"), await lab.agent("host-2")
        for number in (1, 2, 3):
            await one.register(vm(number))
        await two.register(vm(4, tenant="red"))
        await two.register(vm(5, tenant="red"), state=types.VM_STATE_PAUSED)
        assert await counted(lab.operator) == {"running": 4, "paused": 1}
        await one.register(vm(1), state=types.VM_STATE_SHUT_OFF)
        await one.deregister(vm_id(2), epoch=1)
        assert await counted(lab.operator) == {"running": 2, "paused": 1, "shut_off": 1}
        assert await counted(lab.operator, tenant="blue") == {"running": 1, "shut_off": 1}
        assert await counted(lab.operator, server_id="host-2") == {"running": 1, "paused": 1}
        assert await counted(lab.operator, server_id="host-2", tenant="blue") == {}
        assert await counted(lab.operator, network="red-net") == {"running": 1, "paused": 1}
        assert await counted(lab.operator, server_id="nobody") == {}
        tenant = Client(lab.channel, "tenant/blue")
        assert await counted(tenant) == {"running": 1, "shut_off": 1}
        assert await counted(tenant, tenant="red") == {}
