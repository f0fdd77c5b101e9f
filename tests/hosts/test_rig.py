"""The rig is tested first, without a line of the product.

Only what is seen to pass here can be said to be stopped by the product elsewhere.
"""

import subprocess
from pathlib import Path

import pytest

from deploy.lab import Guest, GuestSpec, Lab, Nic, Probe, netns
from deploy.lab.blackout import Blackout
from deploy.lab.overlay import flood

VNI = 1001
BRIDGE = f"br-{VNI}"
A = GuestSpec(
    "a", (Nic("52:54:00:00:00:0a", VNI, "10.1.0.1/24", bridge=BRIDGE),), tenant="acme", group="web"
)
B = GuestSpec("b", (Nic("52:54:00:00:00:0b", VNI, "10.1.0.2/24", bridge=BRIDGE),), tenant="acme")
MS = 1_000_000


@pytest.fixture(scope="module")
def overlay(lab: Lab) -> Lab:
    flood(lab, VNI)
    return lab


@pytest.fixture(scope="module")
def probe(overlay: Lab) -> Probe:
    return overlay.probe("eye", on=2, bridge=BRIDGE, address="10.1.0.9/24")


@pytest.fixture(scope="module")
def guests(overlay: Lab) -> dict[str, Guest]:
    """Two guests, one on each host, both answering."""
    both = [overlay.guest(A, on=1), overlay.guest(B, on=2)]
    return {guest.name: guest.wait_ready() for guest in both}


def test_guests_on_two_hosts_reach_each_other(guests: dict[str, Guest]) -> None:
    assert "1 packets received" in guests["a"].console("ping -c 1 -w 5 10.1.0.2")
    assert "1 packets received" in guests["b"].console("ping -c 1 -w 5 10.1.0.1")


def test_every_service_answers(guests: dict[str, Guest], probe: Probe) -> None:
    for guest, address in (("a", "10.1.0.1"), ("b", "10.1.0.2")):
        probe.wait_ping(address)
        assert probe.http_get(address) == guest
        assert probe.http_get(address, 8080) == guest
        assert probe.tcp_read(address, 22).startswith(b"SSH-2.0")
        assert not probe.tcp_connects(address, 23), "nobody listens there"


def test_a_console_reports_failure_and_survives_a_command_that_hangs(
    guests: dict[str, Guest],
) -> None:
    with pytest.raises(RuntimeError, match="exit 3"):
        guests["a"].console("sh -c 'exit 3'")
    with pytest.raises(TimeoutError):
        guests["a"].console("sleep 60", timeout=0.5)
    guests["a"].wait_ready()
    assert guests["a"].console("hostname") == "a"


def test_a_forged_frame_is_seen(guests: dict[str, Guest], probe: Probe) -> None:
    """Nothing filters here; a later test may then claim that its filter is what filters."""
    with probe.capture() as seen:
        guests["a"].console("ip addr add 10.1.0.66/24 dev eth0")
        guests["a"].console("arping -q -U -c 1 -I eth0 -s 10.1.0.66 10.1.0.66; true")
        guests["a"].console("ip addr del 10.1.0.66/24 dev eth0")
        assert seen.count(source_ip="10.1.0.66", source_mac=A.nics[0].mac)


def test_guests_survive_a_restart_of_libvirtd(guests: dict[str, Guest]) -> None:
    host = guests["a"].host
    for end in (host.stop_libvirtd, host.kill9_libvirtd):
        before = guests["a"].console("cat /proc/uptime")
        end()
        host.start_libvirtd()
        assert guests["a"].state() == "running"
        assert float(guests["a"].console("cat /proc/uptime").split()[0]) > float(before.split()[0])


def test_a_live_migration_keeps_the_guest_and_its_network(
    overlay: Lab, guests: dict[str, Guest], probe: Probe
) -> None:
    there, guest = guests["a"], guests["a"]
    guest.console("echo remembered > /tmp/note")
    for to in (overlay.host(2), overlay.host(1)):
        pinging = probe.ping_every("10.1.0.1", 10)
        guest = guest.migrate(to, "--persistent", "--undefinesource")
        seen = pinging.stop()
        print(f"\nlongest gap {seen.longest_gap_ms:.0f} ms, {seen.lost} of {seen.sent} lost")
        assert guest.console("cat /tmp/note") == "remembered"
        assert guest.state() == "running"
        assert seen.longest_gap_ms < 5000
    assert there.state() == "running", "it came back"


def test_a_cut_cable_stops_the_traffic(
    overlay: Lab, guests: dict[str, Guest], probe: Probe
) -> None:
    overlay.cut(1)
    assert not probe.ping("10.1.0.1")
    overlay.mend(1)
    probe.wait_ping("10.1.0.1")


def test_the_blackout_is_the_longest_time_between_replies() -> None:
    echoes = [(at * MS, at * MS + 1) for at in range(0, 100, 10)]
    echoes[4:7] = [(at, 0) for at, _ in echoes[4:7]]
    seen = Blackout.of(echoes)
    assert (seen.longest_gap_ms, seen.lost, seen.sent) == (40.0, 3, 10)


def test_an_outage_that_has_not_ended_counts() -> None:
    assert Blackout.of([(0, MS), (10 * MS, 0), (51 * MS, 0)]).longest_gap_ms == 50.0


def test_down_leaves_nothing(hosts_available: None) -> None:
    links = _links()
    lab = Lab(hosts=1).up()
    host, names = lab.host(1), lab.names
    host.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    lab.probe("eye", on=1, bridge=BRIDGE, address="10.1.0.9/24")
    lab.guest(A, on=1)
    host.popen(["sleep", "600"])
    inside = netns.pids(host.netns)
    assert len(inside) >= 3, "libvirtd, QEMU, sleep"
    Lab.existing(names.run_id).down()
    assert not [name for name in netns.existing() if names.owns(name)]
    assert not [pid for pid in inside if _runs(pid)]
    assert not names.work.exists()
    assert str(names.work) not in Path("/proc/self/mountinfo").read_text()
    assert _links() == links
    lab.down()


def test_a_failed_start_leaves_nothing(hosts_available: None) -> None:
    lab = Lab(hosts=2)
    netns.create(lab.host(2).netns)  # in the way
    with pytest.raises(RuntimeError):
        lab.up()
    assert not [name for name in netns.existing() if lab.names.owns(name)]
    assert not lab.names.work.exists()


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def _links() -> list[str]:
    return sorted(subprocess.check_output(["ip", "-br", "link"], text=True).split("\n"))
