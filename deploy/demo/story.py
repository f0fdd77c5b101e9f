"""The story: discovery, lookup, policy, a live move, and the same again after it."""

import time
from functools import partial
from typing import Any

from common.pb.vsignal.v1 import directory_pb2, operations_pb2, types_pb2
from deploy.demo.control import Control, stood_still, until
from deploy.demo.stage import Actor, Stage
from deploy.demo.teller import Teller
from vcenter.ctl.movement import blackout

WEB = Actor(
    name="web",
    vm_id="6f1c4a52-0d0e-4a7c-9a51-000000000001",
    mac="52:54:00:aa:00:05",
    ip="10.1.0.5",
    tenant="acme",
    network="blue",
    vni=1001,
    host=1,
    group="web",
)
BATCH = Actor(
    name="batch",
    vm_id="6f1c4a52-0d0e-4a7c-9a51-000000000002",
    mac="52:54:00:aa:00:06",
    ip="10.1.0.6",
    tenant="acme",
    network="blue",
    vni=1001,
    host=3,
)
RIVAL = Actor(
    name="rival",
    vm_id="6f1c4a52-0d0e-4a7c-9a51-000000000003",
    mac="52:54:00:bb:00:05",
    ip="10.1.0.5",
    tenant="globex",
    network="red",
    vni=2001,
    host=2,
)
ACTORS = (WEB, BATCH, RIVAL)
PROBE_ADDRESS = "10.1.0.9/24"
ICMP, TCP = 1, 6


def web_profile() -> types_pb2.Profile:
    """ICMP and TCP 80 in, TCP 22 not, at most 50 Mbit/s."""
    inbound: Any = {"direction": types_pb2.DIRECTION_INGRESS}
    permit: Any = {"action": types_pb2.ACTION_PERMIT, **inbound}
    deny: Any = {"action": types_pb2.ACTION_DENY, **inbound}
    ssh, http = types_pb2.PortRange(first=22, last=22), types_pb2.PortRange(first=80, last=80)
    rules = [
        types_pb2.AclRule(name="ping", protocol=ICMP, **permit),
        types_pb2.AclRule(name="http", protocol=TCP, destination_ports=http, **permit),
        types_pb2.AclRule(name="no-ssh", protocol=TCP, destination_ports=ssh, **deny),
    ]
    acl = types_pb2.Acl(rules=rules, default_ingress=types_pb2.ACTION_DENY)
    return types_pb2.Profile(acl=acl, ingress_rate=types_pb2.Rate(bits_per_second=50_000_000))


class Story:
    """Plays once; `seen` is what `--json` writes."""

    def __init__(self, stage: Stage, teller: Teller) -> None:
        self._stage = stage
        self._tell = teller
        self.seen: dict[str, Any] = {
            "hypervisor": stage.hypervisor,
            "vms": 0,
            "lookups": {},
            "moves": [],
            "policy": {},
            "ok": False,
        }

    def play(self, control: Control) -> None:
        self.hosts(control)
        self.declare(control)
        self.discover(control)
        self.look_up(control)
        self.policy("before")
        self.move(control)
        self.policy("after")
        self.look_up_again(control)

    def hosts(self, control: Control) -> None:
        with self._tell.step("Three vServers attach to the vCenter"):
            attached = until("three attached vServers", lambda: _attached(control))
            for load in attached:
                server = load.server
                can = ", ".join(
                    types_pb2.Capability.Name(c)[11:].lower() for c in server.capabilities
                )
                self._tell.say(f"{server.server_id}  {server.vtep_address}  enforces: {can}")
            self._tell.check("all three hold a lease", len(attached) == 3)

    def declare(self, control: Control) -> None:
        with self._tell.step("The operator declares tenants, networks, and a group with a profile"):
            for actor in (WEB, RIVAL):
                control.declare_tenant(actor.tenant)
                control.declare_network(actor.network, actor.tenant, actor.vni)
                self._tell.say(f"tenant {actor.tenant}, network {actor.network}, VNI {actor.vni}")
            control.declare_group(WEB.tenant, WEB.group, web_profile())
            self._tell.say("group acme/web: permit ICMP, permit TCP 80, deny TCP 22, 50 Mbit/s")

    def discover(self, control: Control) -> None:
        with self._tell.step("Somebody starts guests with virsh; nobody tells vsignal"):
            for actor in ACTORS:
                self._stage.start_guest(actor)
                self._tell.say(
                    f"{actor.name}: {actor.tenant} {actor.ip} {actor.mac} on h{actor.host}"
                )
            records = [
                until(f"{a.name} registered", partial(registered, control, a)) for a in ACTORS
            ]
            self.seen["vms"] = len(records)
            owners = [r.record.location.server_id for r in records]
            self._tell.check(
                "each was registered by its own host", owners == [f"h{a.host}" for a in ACTORS]
            )
            epochs = {r.record.location.epoch for r in records}
            self._tell.check("two tenants use 10.1.0.5 side by side", epochs == {1}, "epoch 1")
            self._stage.wait_guests()

    def look_up(self, control: Control) -> None:
        with self._tell.step("Lookup by vm_id, by MAC and by IP"):
            keys = {
                WEB.vm_id: (WEB.by_id(), WEB),
                f"{WEB.vni}/{WEB.mac}": (WEB.by_mac(), WEB),
                f"{WEB.vni}/{WEB.ip}": (WEB.by_ip(), WEB),
                f"{RIVAL.vni}/{RIVAL.ip}": (RIVAL.by_ip(), RIVAL),
            }
            results = control.lookup(*(key for key, _ in keys.values()))
            rows = []
            for (text, (_, actor)), result in zip(keys.items(), results, strict=True):
                owner = result.location.server_id
                self.seen["lookups"][text] = owner
                rows.append([text, result.name, owner, result.management_address])
                right = result.vm_id == actor.vm_id and owner == f"h{actor.host}"
                if not right:
                    self._tell.check(f"{text} is {actor.name} on h{actor.host}", False)
            self._tell.table(["key", "VM", "vServer", "address"], rows)
            self._tell.check("every key found its VM, the overlapping IP included", True)

    def policy(self, when: str) -> None:
        """Measured with packets, from a third host."""
        with self._tell.step(f"The policy, by packets from h3, {when} the move"):
            stage = self._stage
            if when == "before":
                stage.place_probe(WEB.vni, PROBE_ADDRESS, host=3)
            self._tell.check("inside the guest, port 22 does answer", stage.listens(WEB, 22))
            until("ping answered", lambda: stage.ping(WEB.ip), timeout=10)
            permitted = [
                self._tell.check("ICMP is answered", stage.ping(WEB.ip)),
                self._tell.check("TCP 80 is answered", stage.tcp(WEB.ip, 80)),
                self._tell.check("TCP 22 of an unrestricted VM is", stage.tcp(BATCH.ip, 22)),
            ]
            denied = self._tell.check("TCP 22 is not answered", not stage.tcp(WEB.ip, 22))
            self.seen["policy"][when] = {
                "permitted_ok": all(permitted),
                "denied_blocked": denied,
            }

    def move(self, control: Control) -> None:
        with self._tell.step("A live move, h1 to h2, while h3 pings every 10 ms"):
            phases: list[str] = []
            with self._stage.pinging(WEB.ip, 10.0) as gap:
                time.sleep(0.5)
                done = control.move(WEB.vm_id, "h2", lambda o: self._progress(o, phases))
                time.sleep(1.0)
            done = control.told(done, _is_whole)
            self._receipt(done, gap.longest_ms)
            succeeded = done.phase == operations_pb2.PHASE_SUCCEEDED
            self._tell.check("the move succeeded", succeeded, done.failure.message)
            self._tell.check("the epoch grew by one", done.epoch_after == done.epoch_before + 1)
            receipt = done.receipt
            same = receipt.policy_hash_before == receipt.policy_hash_after != ""
            self._tell.check("the same policy is in force", same, receipt.policy_hash_after[:12])
            self._tell.check(
                f"blackout {gap.longest_ms:.0f} ms, under 400 ms", gap.longest_ms < 400
            )

    def _progress(self, operation: operations_pb2.Operation, phases: list[str]) -> None:
        phase = operations_pb2.Phase.Name(operation.phase)[6:].lower().replace("_", "-")
        if not phases or phases[-1] != phase:
            phases.append(phase)
            self._tell.say(f"[dim]→[/dim] {phase}")

    def _receipt(self, done: operations_pb2.Operation, blackout_ms: float) -> None:
        receipt = done.receipt
        rows = [
            ["total", f"{receipt.total_ms:.0f} ms"],
            ["downtime (hypervisor)", f"{receipt.downtime_ms:.0f} ms"],
            ["blackout (h3's pings)", f"{blackout_ms:.0f} ms"],
            ["blackout (observer)", blackout(receipt)],
            ["copied", f"{receipt.bytes / 1e6:.1f} MB"],
            ["epoch", f"{done.epoch_before} → {done.epoch_after}"],
            ["policy", f"{receipt.policy_hash_before[:12]} → {receipt.policy_hash_after[:12]}"],
            ["asked by", done.requested_by],
        ]
        self._tell.say("[bold]receipt[/bold]")
        self._tell.table(["", ""], rows)
        self.seen["moves"].append(
            {
                "vm": done.vm_id,
                "from": done.source,
                "to": done.destination,
                "total_ms": receipt.total_ms,
                "downtime_ms": receipt.downtime_ms,
                "blackout_ms": round(blackout_ms, 1),
                "observer": receipt.observer,
                "observed_blackout_ms": (
                    round(receipt.blackout_ms, 1) if receipt.HasField("blackout_ms") else None
                ),
                "bytes": receipt.bytes,
                "epoch_before": done.epoch_before,
                "epoch_after": done.epoch_after,
                "policy_hash_before": receipt.policy_hash_before,
                "policy_hash_after": receipt.policy_hash_after,
            }
        )

    def look_up_again(self, control: Control) -> None:
        with self._tell.step("The lookup answers the new host"):
            for key in (WEB.by_id(), WEB.by_mac(), WEB.by_ip()):
                result = control.lookup(key)[0]
                kind = key.WhichOneof("key")
                owner, epoch = result.location.server_id, result.location.epoch
                self._tell.check(f"by {kind}: {owner}", owner == "h2", f"epoch {epoch}")


def _attached(control: Control) -> list[directory_pb2.ServerLoad]:
    servers = control.servers()
    live = [s for s in servers if s.server.liveness == types_pb2.LIVENESS_ATTACHED]
    return live if len(live) >= 3 else []


def _is_whole(receipt: operations_pb2.Receipt) -> bool:
    """It has the blackout, or why that was not measured, and the hypervisor's last figures."""
    observed = receipt.HasField("blackout_ms") or receipt.blackout_why
    return bool(observed) and stood_still(receipt)


def registered(control: Control, actor: Actor) -> directory_pb2.GetVmResponse | None:
    """Registered, running, and with its policy read back from the data plane by its host."""
    found = control.vm(actor.vm_id)
    if found is None or found.record.location.state != types_pb2.VM_STATE_RUNNING:
        return None
    in_force = found.status.applied_hash == found.record.profile_hash
    return found if found.record.vm.tenant and in_force else None
