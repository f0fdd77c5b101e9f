"""Profiles that the tests put in force, and what they mean in packets."""

from typing import Any

from common.pb.vsignal.v1 import types_pb2
from deploy.lab import Guest, Probe
from deploy.lab.capture import Capture, Frame

ICMP, TCP = 1, 6
_IPV6, _ICMP6, _ARPS = 0x86DD, 58, (0x0806, 0x8035)
PERMIT, DENY = types_pb2.ACTION_PERMIT, types_pb2.ACTION_DENY
TO_VM, FROM_VM = types_pb2.DIRECTION_INGRESS, types_pb2.DIRECTION_EGRESS


def rule(action: Any, direction: Any = TO_VM, **match: Any) -> types_pb2.AclRule:
    return types_pb2.AclRule(action=action, direction=direction, **match)


def port(number: int) -> dict[str, Any]:
    return {
        "protocol": TCP,
        "destination_ports": types_pb2.PortRange(first=number, last=number),
    }


def web() -> types_pb2.Profile:
    """ICMP and TCP 80 to the VM, nothing else."""
    rules = [rule(PERMIT, protocol=ICMP), rule(PERMIT, **port(80)), rule(DENY, **port(22))]
    return types_pb2.Profile(acl=types_pb2.Acl(rules=rules, default_ingress=DENY))


def ssh() -> types_pb2.Profile:
    """TCP 22 to the VM, nothing else."""
    rules = [rule(PERMIT, **port(22))]
    return types_pb2.Profile(acl=types_pb2.Acl(rules=rules, default_ingress=DENY))


def web_holds(probe: Probe, guest: Guest) -> None:
    """By packets: what `web` permits is answered, what it denies is not."""
    ip = ip_of(guest)
    probe.wait_ping(ip)
    assert probe.http_get(ip, timeout=5.0) == guest.name
    assert not probe.tcp_connects(ip, 22, timeout=0.5)
    assert not probe.tcp_connects(ip, 8080, timeout=0.5), "denied by default"


def closed(probe: Probe, guest: Guest) -> None:
    """By packets: nothing of the guest is heard, though it is there."""
    ip = ip_of(guest)
    with probe.capture() as seen:
        assert not probe.ping(ip)
        assert not probe.tcp_connects(ip, 80)
        guest.console(f"ping -c 2 -W 1 {probe.address.partition('/')[0]}; true")
        assert not heard(seen, guest)


def heard(seen: Capture, guest: Guest) -> list[Frame]:
    """The frames that carry the guest's MAC as their sender."""
    return [frame for frame in seen.frames if frame.source_mac == guest.spec.nics[0].mac]


def foreign(seen: Capture, guest: Guest) -> list[Frame]:
    """Those of them that are not about neighbours: ARP and IPv6's discovery pass by default."""
    return [frame for frame in heard(seen, guest) if not _is_neighbours(frame)]


def _is_neighbours(frame: Frame) -> bool:
    if frame.ethertype == _IPV6:
        return frame.raw[20] == _ICMP6 and frame.raw[54] in range(133, 137)
    return frame.ethertype in _ARPS


def ip_of(guest: Guest) -> str:
    return guest.spec.nics[0].ip.partition("/")[0]
