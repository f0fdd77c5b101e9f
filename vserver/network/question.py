"""A question to a guest whether it is there, and its answer. Pure.

The guest's address decides how it is asked. By IPv4, with an ARP probe (RFC 5227): its sender,
0.0.0.0, enters no cache. By IPv6, with a Neighbor Solicitation to the guest alone, as one that
verifies what it knows (RFC 4861, 7.3). From "::" that would be answered to all nodes; from an
address whose MAC the guest does not know, it would ask all nodes for it. So it comes from the
link-local address of the MAC in whose name it is asked, and names that MAC: what the guest
remembers of it, no other VM may contradict (`policy.is_genuine`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from common.model.profile import ARP, ICMP6, IPV6
from vserver.network.frame import (
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    Frame,
    link_local,
)
from vserver.network.port import Neighbour


def question(to: Neighbour) -> Frame:
    """Unicast, to the guest's MAC."""
    if ipaddress.ip_address(to.ip).version == 4:
        return Frame(to.asker, to.mac, ARP, "0.0.0.0", to.ip, sender_mac=to.asker)
    return Frame(
        to.asker,
        to.mac,
        IPV6,
        link_local(to.asker),
        to.ip,
        ICMP6,
        icmp_type=NEIGHBOUR_SOLICITATION,
        icmp_code=0,
        nd_target=to.ip,
    )


def answer(asked: Frame) -> Frame:
    """What a guest that has the address says to the question, unicast to the asker's MAC."""
    reply = replace(
        asked,
        source_mac=asked.destination_mac,
        destination_mac=asked.source_mac,
        source_ip=asked.destination_ip,
        destination_ip=asked.source_ip,
    )
    if asked.ethertype == ARP:
        return replace(reply, sender_mac=asked.destination_mac)
    return replace(reply, icmp_type=NEIGHBOUR_ADVERTISEMENT)
