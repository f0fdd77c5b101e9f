"""5.4, Virtualization Server Lookup (A16): which vServer holds a VM, by any of its identities."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from common.rpc import identity
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.nouns import by_id, by_ip, by_mac, ip, mac, vm, vm_id


def keys(*keys: types.VmKey) -> pb.LookupRequest:
    return pb.LookupRequest(keys=keys)


@pytest.mark.parametrize("key", [by_id(1), by_mac(1), by_ip(1)], ids=["vm_id", "mac", "ip"])
async def test_each_of_the_three_keys_finds_the_vm(lab: Lab, key: types.VmKey) -> None:
    host = await lab.agent("host-1")
    record = (await host.register(vm(1))).record
    for lookup in (host.client.signaling.Lookup, lab.operator.directory.Lookup):
        answer = await lookup(keys(key))
        (found,) = answer.results
        assert found.found
        assert (found.vm_id, found.name, found.tenant) == (vm_id(1), "vm-1", "blue")
        assert found.location == record.location
        assert found.server_name == host.server.name
        assert found.management_address == host.server.management_address
        assert found.vtep_address == host.server.vtep_address
        assert found.profile_hash == record.profile_hash
        assert (found.authority, found.certainty) == ("local", pb.CERTAINTY_AUTHORITATIVE)
        assert answer.revision == lab.revision


async def test_addresses_are_looked_up_inside_their_vni(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    twin = vm(2, tenant="red")
    twin.interfaces[0].mac, twin.interfaces[0].ips[:] = mac(1), [ip(1)]
    await host.register(twin)
    answer = await host.client.signaling.Lookup(
        keys(by_ip(1, 100), by_ip(1, 200), by_mac(1, 100), by_mac(1, 200))
    )
    assert [r.vm_id for r in answer.results] == [vm_id(1), vm_id(2)] * 2


async def test_other_spellings_of_an_address_find_it_too(lab: Lab) -> None:
    host = await lab.agent("host-1")
    dual = vm(1)
    dual.interfaces[0].ips.append("2001:db8::a")
    await host.register(dual)
    ipv6 = types.VmKey(ip=types.VmKey.IpKey(vni=100, ip="2001:0DB8:0:0::000A"))
    upper = types.VmKey(mac=types.VmKey.MacKey(vni=100, mac=mac(1).upper().replace(":", "-")))
    answer = await host.client.signaling.Lookup(keys(ipv6, upper))
    assert [result.found for result in answer.results] == [True, True]


async def test_not_found_is_an_answer_in_its_place(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.register(vm(2))
    answer = await host.client.signaling.Lookup(keys(by_id(2), by_ip(9), by_id(9), by_mac(1)))
    assert [r.vm_id for r in answer.results] == [vm_id(2), "", "", vm_id(1)]
    assert [r.found for r in answer.results] == [True, False, False, True]
    assert answer.results[1].certainty == pb.CERTAINTY_AUTHORITATIVE


async def test_ten_thousand_keys_in_one_call(lab: Lab) -> None:
    host = await lab.agent("host-1")
    for number in range(1, 4):
        await host.register(vm(number))
    many = [by_id(n % 4) for n in range(10_000)]
    answer = await host.client.signaling.Lookup(keys(*many))
    assert [r.found for r in answer.results] == [n % 4 != 0 for n in range(10_000)]
    refusal = await refusal_of(host.client.signaling.Lookup(keys(*many, by_id(1))))
    assert refusal.reason is Reason.TOO_LARGE


async def test_batches_are_answered_in_order(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    request = directory_pb2.BatchLookupRequest(batches=[keys(by_id(9)), keys(by_id(1), by_ip(1))])
    answer = await lab.operator.directory.BatchLookup(request)
    found = [[result.found for result in batch.results] for batch in answer.batches]
    assert found == [[False], [True, True]]


@pytest.mark.parametrize(
    "batches",
    [[keys(by_id(1))] * 11, [keys(*[by_id(1)] * 5_001)] * 2],
    ids=["batches", "keys"],
)
async def test_batches_over_the_limit_are_refused(
    lab: Lab, batches: list[pb.LookupRequest]
) -> None:
    request = directory_pb2.BatchLookupRequest(batches=batches)
    refusal = await refusal_of(lab.operator.directory.BatchLookup(request))
    assert refusal.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (types.VmKey(vm_id="vm-1"), "keys[1].vm_id"),
        (types.VmKey(), "keys[1].key"),
        (by_mac(1, vni=0), "keys[1].mac.vni"),
        (by_ip(1, vni=2**24), "keys[1].ip.vni"),
        (types.VmKey(ip=types.VmKey.IpKey(vni=1, ip="10.0.0.256")), "keys[1].ip.ip"),
    ],
)
async def test_a_malformed_key_is_named(lab: Lab, key: types.VmKey, field: str) -> None:
    refusal = await refusal_of(lab.operator.directory.Lookup(keys(by_id(1), key)))
    assert refusal.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refusal.violations] == [field]


async def test_at_least_one_key(lab: Lab) -> None:
    refusal = await refusal_of(lab.operator.directory.Lookup(keys()))
    assert [violation.field for violation in refusal.violations] == ["keys"]


async def test_a_stream_of_lookups_is_answered_in_order(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.register(vm(2))
    asked = [keys(by_id(2)), keys(by_id(9), by_mac(1)), keys(*[by_id(1)] * 10_000)]
    call = host.client.signaling.LookupStream(iter(asked))
    answers = [answer async for answer in call]
    first, second, third = ([r.vm_id for r in answer.results] for answer in answers)
    assert (first, second) == ([vm_id(2)], ["", vm_id(1)]) and third == [vm_id(1)] * 10_000
    refusal = await refusal_of(host.client.signaling.LookupStream(iter([keys(by_id(1)), keys()])))
    assert [violation.field for violation in refusal.violations] == ["keys"]


async def test_what_looks_like_vm_ids_and_is_none_is_read_in_full(lab: Lab) -> None:
    """The short way reads a request's vm_ids without parsing it; nothing else may pass there."""
    host = await lab.agent("host-1")
    await host.register(vm(1))
    raw = lab.channel.unary_unary("/vsignal.v1.Signaling/Lookup")
    good = keys(by_id(1)).SerializeToString()
    unknown_field = good + b"\x98\x06\x07"
    for request, found in ((good, [True]), (good * 3, [True] * 3), (unknown_field, [True])):
        answer = pb.LookupResponse.FromString(await raw(request, metadata=identity("vserver/h")))
        assert [result.found for result in answer.results] == found
    for broken in (good[:-1], b"\xff" + good, good.replace(b"-", b"_")):
        refusal = await refusal_of(raw(broken, metadata=identity("vserver/h")))
        assert refusal.reason is Reason.INVALID_FIELD
