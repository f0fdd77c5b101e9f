"""The story of two data centers and a center above them: `./scripts/demo --federation`."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from common.pb.vsignal.v1 import federation_pb2, operations_pb2, signaling_pb2, types_pb2
from deploy.demo.control import Control, stood_still, until
from deploy.demo.stage import Actor, Gap
from deploy.demo.story import PROBE_ADDRESS, WEB, registered, web_profile
from deploy.demo.teller import Teller

PEER = Actor(
    name="peer",
    vm_id="6f1c4a52-0d0e-4a7c-9a51-000000000004",
    mac="52:54:00:aa:00:07",
    ip="10.1.0.7",
    tenant=WEB.tenant,
    network=WEB.network,
    vni=WEB.vni,
    host=4,
)
DOMAINS = ("east", "west", "center")
TO, EYE = "west/h3", 4
BLACKOUT_MS = 1000  # two ledgers, each on a disk of its own, and a vCenter between them
# What the probes have just made the guest do is over by then: TCG breaks guests that write while
# they are copied (docs/performance.md, "Guests that write, without KVM").
QUIET_S = 3.0
HEARD_WITHIN = 60.0  # seconds until a cut, or its end, is noticed on a busy machine


class FederationStage(Protocol):
    """Hosts h1 and h2 in the east, h3 and h4 in the west, a vCenter each, and the center's."""

    hypervisor: str

    def controls(self) -> AbstractContextManager[Mapping[str, Control]]:
        """Each vCenter's operator, by domain."""
        ...

    def start_guest(self, actor: Actor) -> None: ...

    def wait_guests(self) -> None: ...

    def place_probe(self, vni: int, address: str, host: int) -> None: ...

    def ping(self, ip: str) -> bool: ...

    def tcp(self, ip: str, port: int) -> bool: ...

    def pinging(self, ip: str, every_ms: float) -> AbstractContextManager[Gap]: ...

    def cut(self) -> None:
        """The line between the west and everything else."""
        ...

    def mend(self) -> None: ...


class FederationStory:
    """Plays once; `seen` is what `--json` writes."""

    def __init__(self, stage: FederationStage, teller: Teller) -> None:
        self._stage = stage
        self._tell = teller
        self.seen: dict[str, Any] = {
            "hypervisor": stage.hypervisor,
            "domains": {},
            "vms": 0,
            "lookups": {},
            "certainty": {},
            "moves": [],
            "policy": {},
            "ok": False,
        }

    def play(self) -> None:
        with self._stage.controls() as at:
            self._domains(at)
            self._declare(at)
            self._discover(at)
            self._look_up(at, "before", "east", "h1")
            self._policy("before")
            self._move(at)
            self._look_up(at, "after", "west", "h3")
            self._policy("after")
            self._cut(at)
            self._heal(at)

    def _domains(self, at: Mapping[str, Control]) -> None:
        with self._tell.step("Two data centers, each with a vCenter of its own, and one above"):
            below = until("both domains current", partial(_current, at["center"]), HEARD_WITHIN)
            for domain in below:
                state = federation_pb2.DomainState.Name(domain.state)[13:].lower()
                self.seen["domains"][domain.name] = {"state": state, "servers": domain.servers}
                self._tell.say(f"{domain.name}: {state}, {domain.servers} vServers")
            self._tell.check("the center follows both", len(below) == 2)
            reached = partial(_reaches, at["east"], "west")
            until("the east finds the way to the west", reached, HEARD_WITHIN)

    def _declare(self, at: Mapping[str, Control]) -> None:
        with self._tell.step(
            "A tenant has one network in both; a group with a profile in the east"
        ):
            for name in ("east", "west"):
                at[name].declare_tenant(WEB.tenant)
                at[name].declare_network(WEB.network, WEB.tenant, WEB.vni)
            at["east"].declare_group(WEB.tenant, WEB.group, web_profile())
            self._tell.say("group acme/web: permit ICMP, permit TCP 80, deny TCP 22, 50 Mbit/s")

    def _discover(self, at: Mapping[str, Control]) -> None:
        with self._tell.step("Somebody starts a guest in each data center"):
            for actor, home in ((WEB, "east"), (PEER, "west")):
                self._stage.start_guest(actor)
                until(f"{actor.name} registered", partial(registered, at[home], actor))
                self._tell.say(f"{actor.name}: {actor.ip} {actor.mac} on {home}/h{actor.host}")
                self.seen["vms"] += 1
            self._stage.wait_guests()

    def _look_up(self, at: Mapping[str, Control], when: str, domain: str, host: str) -> None:
        with self._tell.step(f"Asked at all three, {when} the move, the answer is {domain}/{host}"):
            rows, certainty = [], {}
            for name in DOMAINS:
                answered = partial(_found_at, at[name], domain, host)
                result = until(f"{name} answers {domain}/{host}", answered, HEARD_WITHIN)
                certainty[name] = _certainty(result)
                where = f"{result.authority}/{result.location.server_id}"
                self.seen["lookups"].setdefault(when, {})[name] = where
                rows.append([name, where, str(result.location.epoch), certainty[name]])
            self.seen["certainty"][when] = certainty
            self._tell.table(["asked at", "answer", "epoch", "certainty"], rows)
            sure = {name for name, word in certainty.items() if word == "authoritative"}
            self._tell.check("only the domain that owns it is the authority", sure == {domain})

    def _policy(self, when: str) -> None:
        with self._tell.step(f"The policy, by packets from the west's h{EYE}, {when} the move"):
            if when == "before":
                self._stage.place_probe(WEB.vni, PROBE_ADDRESS, host=EYE)
            until("ping answered", lambda: self._stage.ping(WEB.ip), timeout=20)
            permitted = [
                self._tell.check("ICMP is answered", self._stage.ping(WEB.ip)),
                self._tell.check("TCP 80 is answered", self._stage.tcp(WEB.ip, 80)),
            ]
            denied = self._tell.check("TCP 22 is not", not self._stage.tcp(WEB.ip, 22))
            self.seen["policy"][when] = {"permitted_ok": all(permitted), "denied_blocked": denied}

    def _move(self, at: Mapping[str, Control]) -> None:
        title = f"A live move to {TO}, asked for at the center, while h{EYE} pings every 10 ms"
        with self._tell.step(title):
            with self._stage.pinging(WEB.ip, 10.0) as gap:
                time.sleep(QUIET_S)
                done = at["center"].move(WEB.vm_id, TO)
                time.sleep(2.0)
            done = at["center"].told(done, stood_still)
            receipt, name = done.receipt, operations_pb2.Phase.Name(done.phase)
            good = done.phase == operations_pb2.PHASE_SUCCEEDED
            self._tell.check("the move succeeded", good, done.failure.message or name)
            self._tell.check("the epoch grew by one", done.epoch_after == done.epoch_before + 1)
            same = receipt.policy_hash_before == receipt.policy_hash_after != ""
            self._tell.check("the same policy is in force", same, receipt.policy_hash_after[:12])
            self._tell.check(
                f"blackout {gap.longest_ms:.0f} ms, under {BLACKOUT_MS} ms",
                gap.longest_ms < BLACKOUT_MS,
            )
            self._mirrored(at["west"], done)
            self.seen["moves"].append(_seen(done, gap))

    def _mirrored(self, west: Control, done: operations_pb2.Operation) -> None:
        def ended() -> operations_pb2.Operation | None:
            mirror = west.operation(done.operation_id)
            return mirror if mirror.done else None

        mirror = until("the west's record of it ended", ended, HEARD_WITHIN)
        phases = [p.phase for p in mirror.phases] == [p.phase for p in done.phases]
        self._tell.check(
            "both ledgers have it, under one id, with the same phases",
            phases and mirror.phase == done.phase,
            f"{mirror.source} -> {mirror.destination}",
        )

    def _cut(self, at: Mapping[str, Control]) -> None:
        with self._tell.step("The line to the west is cut"):
            self._stage.cut()
            stale = partial(_with_certainty, at["center"], "stale")
            result = until("the center says stale", stale, HEARD_WITHIN)
            own = _found(at["west"])
            certainty = {"center": _certainty(result), "west": _certainty(own)}
            self.seen["certainty"]["cut"] = certainty
            self._tell.check("the center says since when it knows nothing", _since(result))
            self._tell.check("the west is its own authority", certainty["west"] == "authoritative")
            self._tell.check("and its guests talk on", self._stage.ping(WEB.ip))

    def _heal(self, at: Mapping[str, Control]) -> None:
        with self._tell.step("The line is mended"):
            self._stage.mend()
            cached = partial(_with_certainty, at["center"], "cached")
            result = until("the center hears of it again", cached, HEARD_WITHIN)
            at_west = (result.authority, result.location.server_id, result.location.epoch)
            self.seen["certainty"]["healed"] = {"center": _certainty(result)}
            self._tell.check("the center agrees again", at_west == ("west", "h3", 2))
            self._tell.check("nobody raised an alarm", not _alerts(at))


def _current(center: Control) -> list[federation_pb2.Domain] | None:
    """Both are heard of, with the hosts that they should have attached."""
    below = list(center.domains().domains)
    good = [d for d in below if d.state == federation_pb2.DOMAIN_STATE_CURRENT and d.servers == 2]
    return good if len(good) == 2 else None


def _reaches(control: Control, name: str) -> bool:
    above = control.domains().domains
    return any(below.name == name for center in above for below in center.domains)


def _found(control: Control) -> signaling_pb2.LookupResult:
    return control.lookup(WEB.by_id())[0]


def _found_at(control: Control, domain: str, host: str) -> signaling_pb2.LookupResult | None:
    result = _found(control)
    return result if (result.authority, result.location.server_id) == (domain, host) else None


def _with_certainty(control: Control, word: str) -> signaling_pb2.LookupResult | None:
    result = _found(control)
    return result if result.found and _certainty(result) == word else None


def _certainty(result: signaling_pb2.LookupResult) -> str:
    return signaling_pb2.Certainty.Name(result.certainty)[10:].lower()


def _since(result: signaling_pb2.LookupResult) -> bool:
    return result.HasField("stale_since")


def _alerts(at: Mapping[str, Control]) -> list[types_pb2.Alert]:
    return [alert for control in at.values() for alert in control.alerts()]


def _seen(done: operations_pb2.Operation, gap: Gap) -> dict[str, Any]:
    receipt = done.receipt
    return {
        "vm": done.vm_id,
        "from": f"east/{done.source}",
        "to": done.destination,
        "total_ms": receipt.total_ms,
        "switch_ms": receipt.switch_ms,
        "downtime_ms": receipt.downtime_ms,
        "blackout_ms": round(gap.longest_ms, 1),
        "bytes": receipt.bytes,
        "epoch_before": done.epoch_before,
        "epoch_after": done.epoch_after,
        "policy_hash_before": receipt.policy_hash_before,
        "policy_hash_after": receipt.policy_hash_after,
    }
