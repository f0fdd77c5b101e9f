"""Whatever of ours or libvirt's is restarted, in whatever order: no VM notices, no port opens, what
was permitted flows on, and within ten seconds ledger and hosts agree again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from common.pb.vsignal.v1 import operations_pb2
from deploy.lab import Guest, GuestSpec, Nic, Probe
from deploy.lab.capture import Capture
from tests.hosts.product import (
    PAUSED,
    RIVAL,
    RIVAL_NETWORK,
    RIVAL_VNI,
    RUNNING,
    SHUT_OFF,
    Product,
    address,
    spec,
)
from tests.hosts.profiles import closed, heard, ip_of, web, web_holds
from tests.hosts.watch import Knocker

STEADY = spec("steady", 11, group="web")
WITNESS = spec("witness", 12, group="web")
STRANGER = GuestSpec(
    "stranger",
    (Nic("52:54:00:30:00:01", RIVAL_VNI, address(16) + "/24", RIVAL_NETWORK),),
    tenant=RIVAL,
)
AGREE_WITHIN = 10.0
UNLIMITED = 10_000  # MiB/s

Ends = Callable[[], object]


@pytest.fixture(scope="module")
def guests(product: Product) -> dict[str, Guest]:
    product.put_group("web", web())
    return {guest.name: guest for guest in product.start((STEADY, 1), (WITNESS, 1), (STRANGER, 1))}


@pytest.fixture(scope="module")
def probe(product: Product, guests: dict[str, Guest]) -> Probe:
    return product.probe(9, on=2)


class Part:
    """Something that can be restarted: on the first host, or the vCenter."""

    def __init__(self, product: Product, name: str) -> None:
        agent, host = product.agents[1], product.lab.host(1)
        daemon = product.center if name == "vcenter" else agent
        is_libvirtd = name == "libvirtd"
        self.stop: Ends = host.stop_libvirtd if is_libvirtd else daemon.stop
        self.kill9: Ends = host.kill9_libvirtd if is_libvirtd else daemon.kill9
        self.start: Ends = host.start_libvirtd if is_libvirtd else daemon.start
        self.reattaches = {"vcenter": (1, 2), "agent": (1,), "libvirtd": ()}[name]


@contextmanager
def undisturbed(
    product: Product, guest: Guest, probe: Probe, *, libvirtd: bool = False
) -> Iterator[None]:
    """For as long as the block lasts nothing happens to the guest, and nothing that it forbids.

    The data plane is the kernel's, so that no frame is lost; but `libvirtd`, restarted, puts taps
    back to the bridge that they were defined on, until the agent sees: then it is heard again.
    """
    before, pid, uptime = product.record(guest), guest.pid, uptime_of(guest)
    run = probe.ping_every(ip_of(guest))
    with Knocker(probe, ip_of(guest), 22) as denied:
        yield
        probe.wait_ping(ip_of(guest), AGREE_WITHIN)
    seen = run.finish()
    print(f"longest gap {seen.longest_gap_ms:.0f} ms, {seen.lost} lost, {denied.knocks} knocks")
    assert not denied.answers
    assert libvirtd or not seen.lost
    assert guest.pid == pid
    assert uptime_of(guest) > uptime
    assert product.record(guest).location == before.location


def uptime_of(guest: Guest) -> float:
    return float(guest.console("cat /proc/uptime").split()[0])


def is_followed(product: Product, witness: Guest) -> None:
    """What happens to a VM from now on reaches the ledger as before."""
    for word, state in (("suspend", PAUSED), ("resume", RUNNING)):
        witness.host.virsh(word, witness.name)
        product.wait_registered(witness, on=1, state=state, timeout=AGREE_WITHIN)
    product.wait_agreement(AGREE_WITHIN)


@pytest.mark.parametrize("end", ["stop", "kill9"])
@pytest.mark.parametrize("name", ["agent", "vcenter", "libvirtd"])
def test_a_restart_changes_no_vm_and_opens_no_port(
    product: Product, guests: dict[str, Guest], probe: Probe, name: str, end: str
) -> None:
    part = Part(product, name)
    with undisturbed(product, guests["steady"], probe, libvirtd=name == "libvirtd"):
        before = product.attachments()
        getattr(part, end)()
        part.start()
        product.wait_attached_anew(before, part.reattaches)
        is_followed(product, guests["witness"])


@pytest.mark.parametrize(
    "order",
    [("libvirtd", "vcenter", "agent"), ("agent", "vcenter", "libvirtd")],
    ids=["hypervisor-first", "hypervisor-last"],
)
def test_all_at_once_in_any_order(
    product: Product, guests: dict[str, Guest], probe: Probe, order: tuple[str, ...]
) -> None:
    parts = [Part(product, name) for name in order]
    with undisturbed(product, guests["steady"], probe, libvirtd=True):
        before = product.attachments()
        for part in parts:
            part.kill9()
        for part in parts:
            part.start()
        product.wait_attached_anew(before, (1, 2))
        is_followed(product, guests["witness"])


def test_no_tenant_hears_another_while_libvirtd_is_back_and_the_agent_is_not(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    witness, stranger = guests["witness"], guests["stranger"]
    product.agents[1].stop()
    host = product.lab.host(1)
    host.kill9_libvirtd()
    host.start_libvirtd()
    product.until("libvirtd has its guests again", lambda: witness.name in host.guests())
    with Capture(host.netns, stranger.tap) as seen:
        answer = witness.console(f"ping -c 2 -W 1 {ip_of(stranger)}; true")
        assert "0 packets received" in answer or "100% packet loss" in answer
        assert not heard(seen, witness)
    product.agents[1].start()
    probe.wait_ping(ip_of(witness))
    product.wait_agreement()


def test_what_happens_while_the_agent_is_down_is_known_afterwards(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    witness = guests["witness"]
    with undisturbed(product, guests["steady"], probe):
        product.agents[1].kill9()
        witness.destroy()
        late = product.lab.guest(spec("late1", 13, group="web"), on=1).wait_ready()
        closed(probe, late)
        product.agents[1].start()
        product.wait_registered(witness, on=1, state=SHUT_OFF, timeout=AGREE_WITHIN)
        product.wait_registered(late, on=1, timeout=AGREE_WITHIN)
        product.wait_agreement(AGREE_WITHIN)
    web_holds(probe, late)
    product.agents[1].stop()
    leave(late)
    product.agents[1].start()
    product.until(
        "it is deregistered", lambda: product.control.vm(late.spec.uuid) is None, AGREE_WITHIN
    )
    witness.start()
    product.wait_registered(witness, on=1)


def test_what_happens_while_the_vcenter_is_down_is_known_afterwards(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    witness = guests["witness"]
    with undisturbed(product, guests["steady"], probe):
        product.center.kill9()
        witness.destroy()
        late = product.lab.guest(spec("late2", 14, group="web"), on=1).wait_ready()
        closed(probe, late)
        product.center.start()
        product.wait_registered(witness, on=1, state=SHUT_OFF, timeout=AGREE_WITHIN)
        product.wait_registered(late, on=1, timeout=AGREE_WITHIN)
        product.wait_agreement(AGREE_WITHIN)
    web_holds(probe, late)
    leave(late)


def leave(guest: Guest) -> None:
    guest.destroy()
    guest.undefine()


@pytest.mark.parametrize("phase", ["copying", "switching"])
@pytest.mark.parametrize("killed", ["vcenter", "source", "destination"])
def test_a_move_that_loses_a_part_ends_with_one_owner(
    product: Product, guests: dict[str, Guest], probe: Probe, killed: str, phase: str
) -> None:
    source = product.record(guests["steady"]).location.server_id
    there = int(source.removeprefix("h"))
    mover = guests["steady"].on(product.lab.host(there))
    agents = {"source": product.agents[there], "destination": product.agents[3 - there]}
    victim = agents.get(killed, product.center)
    uptime = uptime_of(mover)
    mover.limit_copy(4 if phase == "copying" else UNLIMITED)
    with Knocker(probe, ip_of(mover), 22) as denied:
        operation = product.relocate(mover, to=3 - there)
        if phase == "copying":
            product.wait_copying(operation)
        else:
            product.wait_switching(operation)
        victim.kill9()
        mover.host.virsh("migrate-setspeed", mover.name, str(UNLIMITED), check=False)
        victim.start()
        done = product.wait_done(operation)
        product.wait_agreement(AGREE_WITHIN)
    print(f"{killed} killed: {operations_pb2.Phase.Name(done.phase)} {done.failure.message}")
    (running,) = [host for host in product.lab.hosts if mover.name in host.guests()]
    moved = mover.on(running)
    assert product.record(mover).location.server_id == f"h{running.number}"
    assert uptime_of(moved) > uptime
    assert not denied.answers
    web_holds(probe, moved)
