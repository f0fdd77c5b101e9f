"""What a profile says is what packets meet, measured from another host, from the first frame on."""

from collections.abc import Callable

import grpc
import pytest

from common.pb.vsignal.v1 import types_pb2
from common.status import refusal_from_call
from deploy.lab import Guest, Probe
from tests.hosts.product import Product, in_force_on, nft, spec
from tests.hosts.profiles import DENY, foreign, heard, ip_of, ssh, web, web_holds
from tests.hosts.watch import Knocker

LIMIT = 4_000_000  # bits per second


@pytest.fixture(scope="module")
def guests(product: Product) -> dict[str, Guest]:
    product.put_group("web", web())
    product.put_group("free", types_pb2.Profile())
    wanted = [(spec("web", 11, group="web"), 1), (spec("free", 12, group="free"), 1)]
    return {guest.name: guest for guest in product.start(*wanted)}


@pytest.fixture(scope="module")
def probe(product: Product) -> Probe:
    """On the other host: what it measures has crossed the tunnel."""
    return product.probe(9, on=2)


@pytest.fixture
def put(product: Product, guests: dict[str, Guest]) -> Callable[[str, types_pb2.Profile], None]:
    """Change a group's profile, and wait until its member's host has it in force."""

    def put_and_wait(group: str, profile: types_pb2.Profile) -> None:
        before = product.record(guests[group]).profile_hash
        product.put_group(group, profile)

        def changed() -> bool:
            vm = product.control.vm(guests[group].spec.uuid)
            return vm is not None and vm.record.profile_hash != before and in_force_on(vm)

        product.until("the new profile is in force", changed)

    return put_and_wait


def test_what_is_permitted_passes_and_what_is_denied_does_not(
    guests: dict[str, Guest], probe: Probe
) -> None:
    probe.wait_ping(ip_of(guests["free"]))
    assert probe.tcp_connects(ip_of(guests["free"]), 22), "without a rule everything passes"
    assert probe.tcp_connects(ip_of(guests["free"]), 8080)
    web_holds(probe, guests["web"])


def test_a_groups_new_profile_takes_effect_on_running_vms(
    guests: dict[str, Guest], probe: Probe, put: Callable[[str, types_pb2.Profile], None]
) -> None:
    ip = ip_of(guests["web"])
    put("web", ssh())
    assert probe.tcp_connects(ip, 22)
    assert not probe.tcp_connects(ip, 80)
    assert not probe.ping(ip)
    put("web", web())
    web_holds(probe, guests["web"])


def test_denied_by_default_in_both_directions(
    guests: dict[str, Guest], probe: Probe, put: Callable[[str, types_pb2.Profile], None]
) -> None:
    free = guests["free"]
    put("free", types_pb2.Profile(acl=types_pb2.Acl(default_ingress=DENY, default_egress=DENY)))
    with probe.capture() as seen:
        assert not probe.ping(ip_of(free))
        assert not probe.tcp_connects(ip_of(free), 80)
        free.console(f"ping -c 2 -W 1 {probe.address.partition('/')[0]}; true")
        assert not foreign(seen, free)
    put("free", types_pb2.Profile())
    assert probe.tcp_connects(ip_of(free), 22)


def test_a_rate_limit_is_kept_in_both_directions(
    guests: dict[str, Guest], probe: Probe, put: Callable[[str, types_pb2.Profile], None]
) -> None:
    free = guests["free"]
    free.console("dd if=/dev/zero of=/www/big bs=1M count=16")
    fast = download(probe, free), upload(probe, free)
    rate = types_pb2.Rate(bits_per_second=LIMIT)
    put("free", types_pb2.Profile(ingress_rate=rate, egress_rate=rate))
    slow = download(probe, free), upload(probe, free)
    put("free", types_pb2.Profile())
    print(f"Mbit/s from and to the VM: free {fast}, limited {slow}")
    for unlimited, limited in zip(fast, slow, strict=True):
        # The kernel's bucket holds a second's worth, which three seconds spread out.
        assert 0.05 * LIMIT < limited * 1e6 < 1.6 * LIMIT
        assert unlimited > 3 * limited


def download(probe: Probe, guest: Guest) -> float:
    return round(probe.download_rate(ip_of(guest), "/big"), 1)


def upload(probe: Probe, guest: Guest, seconds: float = 3.0) -> float:
    """Mbit/s of datagrams that came in, as the guest counts them."""
    counter = "cat /sys/class/net/eth0/statistics/rx_bytes"
    before = int(guest.console(counter))
    probe.send_udp(ip_of(guest), mbit_per_second=25.0, seconds=seconds)
    return round((int(guest.console(counter)) - before) * 8e-6 / seconds, 1)


def test_a_vlan_is_refused_where_no_host_can_enforce_it(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    profile = web()
    profile.vlan = 7
    with pytest.raises(grpc.RpcError) as caught:
        product.put_group("web", profile)
    refusal = refusal_from_call(caught.value)
    assert refusal is not None
    assert refusal.reason.name == "NOT_ENFORCEABLE"
    assert "h1" in refusal.message
    web_holds(probe, guests["web"])


@pytest.mark.parametrize("chains", ["to-", "from-"])
def test_rules_flushed_by_hand_come_back_and_nothing_is_open_meanwhile(
    product: Product, guests: dict[str, Guest], probe: Probe, chains: str
) -> None:
    host, web = guests["web"].host, guests["web"]
    device = web.tap
    chain = f"chain bridge vsignal {chains}{device}"
    before = host.run(["nft", "list", *chain.split()])
    with Knocker(probe, ip_of(web), 22) as denied:
        host.run(["nft", "flush", *chain.split()])
        product.until(
            "the rules are back",
            lambda: host.run(["nft", "list", *chain.split()]) == before,
            timeout=10.0,
            seen=lambda: nft(host),
        )
    assert denied.knocks
    assert not denied.answers
    web_holds(probe, web)


@pytest.mark.parametrize("what", ["chain bridge vsignal postrouting", "table bridge vsignal"])
def test_a_table_flushed_by_hand_is_mended(
    product: Product, guests: dict[str, Guest], probe: Probe, what: str
) -> None:
    """What closes taps is gone, so they are open, until the agent looks: ten times a second."""
    web = guests["web"]
    before = nft(web.host)
    with Knocker(probe, ip_of(web), 22) as denied:
        web.host.run(["nft", "flush", *what.split()])
        product.until(
            "the rules are back",
            lambda: nft(web.host) == before,
            timeout=10.0,
            seen=lambda: nft(web.host),
        )
    web_holds(probe, web)
    print(f"open for {len(denied.answers)} of {denied.knocks} knocks")


@pytest.mark.parametrize("assigned", [True, False])
def test_a_vm_is_not_heard_before_its_profile_is_in_force(
    product: Product, probe: Probe, assigned: bool
) -> None:
    """Its firmware asks for a system at once, by DHCP, which its profile denies."""
    product.put_group("mute", types_pb2.Profile(acl=types_pb2.Acl(default_egress=DENY)))
    number = 21 if assigned else 22
    made = spec(f"eager{number}", number, group="mute", boots_from_network=True)
    if not assigned:
        made = spec(made.name, number, tenant="", boots_from_network=True)
    with probe.capture() as seen:
        guest = product.lab.guest(made, on=1)
        product.wait_registered(guest, on=1)
        product.until("it sends", lambda: packets_sent(guest) >= 4, seen=lambda: nft(guest.host))
        assert not foreign(seen, guest) if assigned else not heard(seen, guest)
        product.put_group("mute", types_pb2.Profile())
        if not assigned:
            product.assign(guest, group="mute")
        product.wait_registered(guest, on=1)
        guest.host.virsh("reset", guest.name)
        product.until("it is heard at last", lambda: foreign(seen, guest))
    guest.destroy()
    guest.undefine()


def packets_sent(guest: Guest) -> int:
    """As libvirt counts them at the tap, policy or not."""
    words = guest.host.virsh("domifstat", guest.name, guest.tap).split()
    return int(words[words.index("tx_packets") + 1])
