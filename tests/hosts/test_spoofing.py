"""A guest that lies about who it is, is not heard: not by a tenant's endpoint on another host, and
not by the guest beside it. The same lies are heard where the profile lets them pass."""

from dataclasses import dataclass

import pytest

from common.pb.vsignal.v1 import types_pb2
from deploy.lab import Guest, Probe
from deploy.lab.capture import Capture
from tests.hosts.product import Product, address, in_force_on, spec
from tests.hosts.profiles import ip_of
from vserver.network.frame import link_local

LIAR = spec("liar", 11, group="checked")
VICTIM = spec("victim", 12)
PROBE = address(9)
FORGED_MAC, FORGED_IP, FORGED_IPV6 = "52:54:00:66:66:66", address(66), "fe80::66"
DHCP = f"start {address(200)}\\nend {address(210)}\\ninterface eth0\\nlease_file /tmp/leases\\n"
SERVE_ADDRESSES = (
    f"printf '{DHCP}pidfile /tmp/dhcpd.pid\\n' > /tmp/dhcpd.conf;"
    " touch /tmp/leases; udhcpd /tmp/dhcpd.conf"
)
ASK_FOR_AN_ADDRESS = "udhcpc -i eth0 -n -q -t 3 -T 2 -s /bin/true 2>&1; true"


@dataclass(frozen=True)
class Lie:
    """What to type to tell it and to stop telling it; and its sender, as far as it is forged."""

    tell: str
    stop: str
    mac: str | None = None
    ip: str | None = None

    def is_told(self, seen: Capture) -> bool:
        return seen.count(source_mac=self.mac, source_ip=self.ip) > 0


def with_mac(mac: str) -> str:
    return f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"


def claiming(ip: str) -> str:
    return f"ip addr add {ip}/24 dev eth0; arping -q -U -c 2 -I eth0 -s {ip} {ip}"


OWN_MAC, NEIGHBOUR = LIAR.nics[0].mac, address(12)
LIES = {
    "a MAC": Lie(f"{with_mac(FORGED_MAC)}; ping -c 1 -W 1 {PROBE}", with_mac(OWN_MAC), FORGED_MAC),
    "an IP": Lie(
        f"ip addr add {FORGED_IP}/24 dev eth0; ping -c 2 -W 1 -I {FORGED_IP} {PROBE}",
        f"ip addr del {FORGED_IP}/24 dev eth0",
        ip=FORGED_IP,
    ),
    "ARP for a neighbour's IP": Lie(
        claiming(NEIGHBOUR), f"ip addr del {NEIGHBOUR}/24 dev eth0", OWN_MAC, NEIGHBOUR
    ),
}


@pytest.fixture(scope="module")
def guests(product: Product) -> dict[str, Guest]:
    product.put_group("checked", types_pb2.Profile())
    return {guest.name: guest for guest in product.start((LIAR, 1), (VICTIM, 1))}


@pytest.fixture(scope="module")
def probe(product: Product, guests: dict[str, Guest]) -> Probe:
    return product.probe(9, on=2)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_liar_is_not_heard_until_it_stops_lying(
    product: Product, guests: dict[str, Guest], probe: Probe, lie: Lie
) -> None:
    liar, victim = guests["liar"], guests["victim"]
    beside = Capture(victim.host.netns, victim.tap)
    with probe.capture() as seen, beside:
        liar.console(f"{lie.tell}; true")
        assert not lie.is_told(seen)
        assert not lie.is_told(beside)
        liar.console(lie.stop)
        liar.console(f"ping -c 1 -W 5 {PROBE} && ping -c 1 -W 5 {ip_of(victim)}")
        assert seen.count(source_mac=LIAR.nics[0].mac, source_ip=ip_of(liar))


def test_a_guest_serves_no_addresses_unless_its_profile_says_so(
    product: Product, guests: dict[str, Guest]
) -> None:
    liar, client = guests["liar"], guests["victim"]
    liar.console(SERVE_ADDRESSES)
    assert "obtained" not in client.console(ASK_FOR_AN_ADDRESS)
    put_in_force(product, liar, types_pb2.Profile(dhcp_server=True))
    assert "obtained" in client.console(ASK_FOR_AN_ADDRESS)
    put_in_force(product, liar, types_pb2.Profile())
    assert "obtained" not in client.console(ASK_FOR_AN_ADDRESS)
    liar.console("kill $(cat /tmp/dhcpd.pid)")


def test_a_guest_answers_for_no_neighbour_on_ipv6(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    """Its kernel answers who looks for an address that it has given itself."""
    liar = guests["liar"]
    own = link_local(LIAR.nics[0].mac)
    liar.console(f"ip -6 addr add {FORGED_IPV6}/64 dev eth0; sleep 3; true")
    probe.wait_ping(f"{own}%eth0")
    assert not probe.ping(f"{FORGED_IPV6}%eth0", timeout=2.0)
    put_in_force(product, liar, types_pb2.Profile(anti_spoofing=False))
    probe.wait_ping(f"{FORGED_IPV6}%eth0")
    put_in_force(product, liar, types_pb2.Profile())
    liar.console(f"ip -6 addr del {FORGED_IPV6}/64 dev eth0")


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_the_same_lie_is_heard_where_the_profile_does_not_check(
    unchecked: None, guests: dict[str, Guest], probe: Probe, lie: Lie
) -> None:
    """So it is the check that keeps it away, and nothing else."""
    liar, victim = guests["liar"], guests["victim"]
    beside = Capture(victim.host.netns, victim.tap)
    with probe.capture() as seen, beside:
        liar.console(f"{lie.tell}; true")
        liar.console(lie.stop)
        assert lie.is_told(seen)
        assert lie.is_told(beside) or "ping" in lie.tell, "a broadcast reaches everybody"


@pytest.fixture(scope="module")
def unchecked(product: Product, guests: dict[str, Guest]) -> None:
    put_in_force(product, guests["liar"], types_pb2.Profile(anti_spoofing=False))


def put_in_force(product: Product, liar: Guest, profile: types_pb2.Profile) -> None:
    before = product.record(liar).profile_hash
    product.put_group("checked", profile)

    def changed() -> bool:
        vm = product.control.vm(LIAR.uuid)
        return vm is not None and vm.record.profile_hash != before and in_force_on(vm)

    product.until("the profile is in force", changed)
