"""Every method × every role × (own, another's, unknown) object: each cell is asserted.

The methods are those of the service descriptors: one that is new fails here until somebody has said
who may call it. `ok`: answered; `none`: answered with nothing; else the reason of the refusal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from common.clock import SystemClock
from common.model.caller import parse_caller
from common.pb.vsignal.v1 import (
    directory_pb2,
    session_pb2,
)
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.described import METHODS, replies
from tests.support.lab import running_lab
from tests.support.nouns import by_id, by_ip, by_mac, vm
from tests.system.stage import Stage
from tests.system.who_may import (
    CALLERS,
    OTHERS,
    OWN,
    THINGS,
    UNKNOWN,
    expected,
    host,
)
from vcenter.wire.lookup import answer
from vcenter.wire.rules import CHANGING, RULES


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Nothing happens here by itself meanwhile: no lease ends, nothing is old enough to go."""
    async with running_lab(clock=SystemClock(), lease_seconds=300.0) as lab:
        stage = Stage(lab)
        await stage.set()
        yield stage


def test_every_method_has_a_rule_and_a_line_here() -> None:
    assert set(RULES) == set(METHODS), "a method without a rule, or a rule without a method"
    assert {method for method, _ in expected()} == set(METHODS)
    assert set(METHODS) >= CHANGING


@pytest.mark.parametrize("role", CALLERS)
async def test_every_cell(stage: Stage, role: str) -> None:
    wrong, table = [], expected()
    for method in METHODS:
        for thing, wanted in zip(THINGS, table[method, role], strict=True):
            before = stage.lab.revision
            heard, refusal = await stage.call(role, method, thing)
            changed = stage.lab.revision != before
            if heard != wanted:
                wrong.append(f"{method} {thing.tenant}: {heard}, not {wanted} ({refusal})")
            if changed and (refusal is not None or method not in CHANGING):
                wrong.append(f"{method} {thing.tenant}: {heard} changed something")
            if changed:
                await stage.reset()
    assert wrong == []


@pytest.mark.parametrize("role", ["tenant", "watcher of a tenant", "watcher of a network"])
async def test_what_others_have_is_told_of_in_the_words_for_what_nobody_has(
    stage: Stage, role: str
) -> None:
    for method in METHODS:
        heard = []
        for thing in (OTHERS, UNKNOWN):
            _, refusal = await stage.call(role, method, thing)
            said = "" if refusal is None else f"{refusal.message} {refusal.evidence}"
            for word in thing.words():
                said = re.sub(rf"\b{word}\b", "it", said)
            heard.append((said, refusal and (refusal.reason, refusal.retry_after)))
        assert heard[0] == heard[1], method


@pytest.mark.parametrize("name", ["tenant/blue", "watcher/nve/network/blue-net"])
async def test_a_lookup_does_the_same_work_where_another_holds_what_is_asked_for(
    stage: Stage, name: str
) -> None:
    """No caller learns by timing what others hold: the very same instructions answer it."""
    caller, center = parse_caller(name), stage.lab.center
    free = vm(8, "red")  # an address that nobody holds, in red's VNI
    asked = {
        "vm_id": (by_id(2), by_id(9)),
        "ip": (by_ip(2, 200), by_ip(8, 200)),
        "mac": (by_mac(2, 200), types.VmKey(mac={"vni": 200, "mac": free.interfaces[0].mac})),
    }

    def work(key: types.VmKey, found: bool = False) -> list[str]:
        request = pb.LookupRequest(keys=[key]).SerializeToString()
        with instructions() as done:
            told = answer(center.ledger.table, center.parts.answers, request, caller)
        assert pb.LookupResponse.FromString(told).results[0].found is found
        return done

    for kind, pair in asked.items():
        for key in pair:
            work(key)  # what is kept for the next time is kept
        held, nobody = map(work, pair)
        assert held == nobody, kind
    assert work(by_id(1), found=True) != work(by_id(9)), "the caller's own"


@contextmanager
def instructions() -> Iterator[list[str]]:
    """Each instruction of Python that this thread executes, in order."""
    done: list[str] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        done.append(f"{frame.f_code.co_qualname} {frame.f_lasti} {event}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield done
    finally:
        sys.settrace(before)


async def test_a_tenant_hears_why_a_host_will_not_do_but_no_figures(stage: Stage) -> None:
    """What is free on a host adds up from everybody's VMs."""
    small = host("host-3")
    small.capacity.memory_mib = 400
    hello = session_pb2.AgentMessage(hello=session_pb2.Hello(server=small))
    await replies(stage.lab, "vserver/host-3", "Session/Attach", [hello])
    _, full = await stage.call("admin", "Signaling/Relocate", OWN)
    _, blunt = await stage.call("tenant", "Signaling/Relocate", OWN)
    assert full is not None and blunt is not None
    assert full.reason is blunt.reason and "400" in full.message and "400" not in blunt.message
    assert blunt.evidence == {}
    request = pb.RelocateRequest(vm_id=OWN.vm_id, destination="host-3", plan_only=True)

    (plan,) = await replies(stage.lab, "tenant/blue", "Signaling/Relocate", [request])
    assert plan.objections and not any("400" in o.message for o in plan.objections)


@pytest.mark.parametrize("scope", [{}, {"tenant": "red"}, {"server_id": "host-2"}])
async def test_a_watch_shows_a_tenant_its_own_whatever_it_asks_for(
    stage: Stage, scope: dict[str, str]
) -> None:
    request = directory_pb2.WatchRequest(**scope)
    events = []
    for most in range(1, 10):
        events = await replies(stage.lab, "tenant/blue", "Directory/Watch", [request], most)
        if events[-1].bookmark:
            break
    told = [event for event in events if not event.bookmark]
    assert all(event.vm.vm.tenant == "blue" for event in told)
    assert len(told) == (0 if scope else 1)
