"""An overlay without any agent: what the rig's own tests and the benchmark's rival stand on."""

from deploy.lab.host import Host
from deploy.lab.lab import Lab


def flood(lab: Lab, vni: int) -> None:
    """A bridge and a VXLAN on every host that floods to all others."""
    for host in lab.hosts:
        _join(lab, host, vni)


def _join(lab: Lab, host: Host, vni: int) -> None:
    bridge, vxlan = f"br-{vni}", f"vx-{vni}"
    others = [other.address for other in lab.hosts if other is not host]
    local = f"id {vni} dstport 4789 local {host.address} nolearning dev eth0"
    host.run(["ip", "link", "add", bridge, "type", "bridge"])
    host.run(["ip", "link", "add", vxlan, "type", "vxlan", *local.split()])
    for other in others:
        host.run(["bridge", "fdb", "append", "00:00:00:00:00:00", "dev", vxlan, "dst", other])
    host.run(["ip", "link", "set", vxlan, "master", bridge, "up"])
    host.run(["ip", "link", "set", bridge, "up"])
