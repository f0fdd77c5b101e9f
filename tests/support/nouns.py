"""VMs, keys and profiles as a test needs them, on the wire."""

from __future__ import annotations

from typing import Any

from common.pb.vsignal.v1 import types_pb2 as types


def vm_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def ip(number: int) -> str:
    return f"10.0.{number >> 8}.{number & 255}"


def interface(number: int, tenant: str = "blue", **more: Any) -> types.Interface:
    return types.Interface(
        **{"mac": mac(number), "ips": [ip(number)], "network": f"{tenant}-net"} | more
    )


def vm(number: int = 1, tenant: str = "blue", **more: Any) -> types.Vm:
    """The number decides id, name, MAC and IP."""
    return types.Vm(
        **{
            "vm_id": vm_id(number),
            "name": f"vm-{number}",
            "tenant": tenant,
            "interfaces": [interface(number, tenant)] if tenant else [],
            "resources": types.Resources(vcpus=1, memory_mib=512),
        }
        | more
    )


def by_id(number: int) -> types.VmKey:
    return types.VmKey(vm_id=vm_id(number))


def by_mac(number: int, vni: int = 100) -> types.VmKey:
    return types.VmKey(mac=types.VmKey.MacKey(vni=vni, mac=mac(number)))


def by_ip(number: int, vni: int = 100) -> types.VmKey:
    return types.VmKey(ip=types.VmKey.IpKey(vni=vni, ip=ip(number)))


def rate(mbit: int) -> types.Rate:
    return types.Rate(bits_per_second=mbit * 1_000_000)


def deny_ssh() -> types.Profile:
    """Permits what it does not name, denies SSH, at 100 Mbit/s."""
    rule = types.AclRule(
        name="no-ssh",
        action=types.ACTION_DENY,
        direction=types.DIRECTION_INGRESS,
        protocol=6,
        destination_ports=types.PortRange(first=22, last=22),
    )
    acl = types.Acl(
        rules=[rule], default_ingress=types.ACTION_PERMIT, default_egress=types.ACTION_PERMIT
    )
    return types.Profile(acl=acl, ingress_rate=rate(100))
