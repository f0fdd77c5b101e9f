"""The network between the hosts: one bridge, in a namespace of its own.

The machine's own namespace stays untouched, so a lab can neither disturb it nor leave
anything in it. Frames may be large, as in data centres: VXLAN then carries guests'
1500 bytes whole.
"""

from collections.abc import Iterable

from deploy.lab import netns, shell

_BRIDGE = "under"
_MTU = 9000
_BLOCKED = "blocked"


def create(name: str) -> None:
    """Make the namespace that plays the switch."""
    netns.create(name)
    shell.ip_batch(
        [f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} mtu {_MTU} up"], netns=name
    )


def plug(underlay: str, into: str, address: str) -> None:
    """Give namespace `into` an `eth0` on the underlay."""
    port = into.rpartition("-")[2]
    ours, theirs = f"{port} mtu {_MTU} netns {underlay}", f"eth0 mtu {_MTU} netns {into}"
    shell.ip_batch([f"link add {ours} type veth peer name {theirs}"])
    shell.ip_batch([f"link set {port} master {_BRIDGE} up"], netns=underlay)
    shell.ip_batch([f"addr add {address}/24 dev eth0", "link set eth0 up"], netns=into)


def split(underlay: str, far: list[str]) -> None:
    """Put these ports on a switch of their own, which one long line joins to the others'."""
    shell.ip_batch(
        [
            f"link add far mtu {_MTU} type bridge",
            f"link add near-end mtu {_MTU} type veth peer name far-end mtu {_MTU}",
            f"link set near-end master {_BRIDGE} up",
            "link set far-end master far up",
            f"link set far mtu {_MTU} up",
            *(f"link set {port} master far" for port in far),
        ],
        netns=underlay,
    )


def set_line(underlay: str, up: bool) -> None:
    """Cut the long line, or mend it."""
    state = "up" if up else "down"
    shell.run(["ip", "-n", underlay, "link", "set", "near-end", state])


def block(underlay: str, ways: Iterable[str]) -> None:
    """Drop what would pass the long line: `out`, towards the ports that were split off, `back`,
    from them, or both. What is on one side alone is not touched."""
    rules = {"out": "oifname near-end drop", "back": "iifname near-end drop"}
    chain = "type filter hook forward priority 0"
    lines = [f"add table bridge {_BLOCKED}", f"add chain bridge {_BLOCKED} line {{ {chain}; }}"]
    lines += [f"add rule bridge {_BLOCKED} line {rules[way]}" for way in ways]
    shell.run(["nft", "-f", "-"], netns=underlay, stdin="\n".join(lines) + "\n")


def unblock(underlay: str) -> None:
    shell.run(["nft", "delete", "table", "bridge", _BLOCKED], netns=underlay)


def cut(underlay: str, number: int) -> None:
    """Pull host `number`'s cable: its processes run on, nobody reaches them."""
    shell.run(["ip", "-n", underlay, "link", "set", f"h{number}", "down"])


def mend(underlay: str, number: int) -> None:
    """Put the cable back."""
    shell.run(["ip", "-n", underlay, "link", "set", f"h{number}", "up"])
