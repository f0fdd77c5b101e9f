"""A real guest moved back and forth, again and again, while it talks and lies.

It answers on one TCP connection fifty times a second, and sends frames with an address that is
not its own; its closed port is knocked at all the time. At the end no forged frame has come out
and no knock was answered, the connection is the one of the beginning, and neither host has
anything of the moves that it did not have before them. It writes little and begins no processes:
without KVM, QEMU 7.2 breaks guests that do while they are copied, also under virsh alone
(docs/performance.md).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from deploy.bench.moving import staged, to_and_fro
from deploy.demo.control import Control, stood_still, until
from deploy.demo.real import RealStage
from deploy.demo.story import PROBE_ADDRESS, WEB
from deploy.faults.conversation import Conversation
from deploy.faults.leftovers import found, more, open_files
from deploy.lab import Guest, Host
from deploy.lab.capture import Capture
from deploy.lab.knocker import Knocker
from vserver.core.announce import GONE_AFTER

FORGED = "10.1.0.66"
OPEN, CLOSED = 80, 22  # of the profile
_WITHIN = 30.0  # for a host to tidy up, and for agents' own comings and goings
_FILES_A_MOVE = 0.25  # open files more than that for each move would be a leak
_ECHO = f"killall httpd; (nc -ll -p {OPEN} -e cat >/dev/null 2>&1) &"
_LIE = (
    f"ip addr add {FORGED}/24 dev eth0;"
    f" (arping -q -U -I eth0 -s {FORGED} {FORGED} >/dev/null 2>&1) &"
)


@dataclass(frozen=True)
class Result:
    """What was seen; `problems` is empty where everything was right."""

    moves: int
    lines: int
    longest_gap_ms: float
    knocks: int
    downtimes_ms: tuple[float, ...]
    problems: tuple[str, ...]


def run(moves: int, hypervisor: str = "libvirt") -> Result:
    """`moves` is made even, so that the guest ends where it began."""
    with staged(hypervisor) as (stage, control):
        for _ in range(2):  # each host has had it once: logs, directories, a known tap
            to_and_fro(control)
        guest = _at(stage, control)
        for line in (_ECHO, _LIE):
            guest.console(f"{line} true")
        return _moved(stage, control, moves + moves % 2)


def _moved(stage: RealStage, control: Control, moves: int) -> Result:
    hosts = stage.hosts[:2]
    eye = stage.probe(WEB.vni, PROBE_ADDRESS, host=3)
    until("the guest says back what it hears", partial(eye.tcp_connects, WEB.ip, OPEN))
    before = _settled(hosts)
    with eye.capture() as seen, Knocker(eye, WEB.ip, CLOSED) as knocks:
        with Conversation(eye, WEB.ip, OPEN) as talk:
            done = [to_and_fro(control) for _ in range(moves)]
            said = talk.heard
            with suppress(TimeoutError):
                until("it still talks", lambda: talk.problem or talk.heard > said, _WITHIN)
            still = talk.heard > said
        forged = seen.count(source_ip=FORGED)
    problems = [*_left(hosts, before, moves), *_silent_liar(_at(stage, control))]
    if not still:
        problems.append(f"nobody answered any more after line {said}")
    if talk.problem:
        problems.append(f"the connection was lost {talk.problem}")
    if forged:
        problems.append(f"{forged} forged frames came out")
    if knocks.answers:
        problems.append(f"the closed port answered, at seconds {knocks.answers}")
    whole = [control.told(each, stood_still) for each in done]
    downtimes = tuple(each.receipt.downtime_ms for each in whole)
    gap = round(talk.longest_gap_s * 1000, 1)
    return Result(moves, talk.heard, gap, knocks.knocks, downtimes, tuple(problems))


def _at(stage: RealStage, control: Control) -> Guest:
    record = control.vm(WEB.vm_id)
    here = record.record.location.server_id if record else ""
    return stage.guest(WEB, int(here.removeprefix("h")))


def _settled(hosts: list[Host]) -> list[tuple[Counter[str], int]]:
    """Once nothing has changed for longer than an agent waits before it takes a VM for gone, and
    its network with it."""
    now, quiet_since = _seen(hosts), time.monotonic()
    until_then = quiet_since + _WITHIN
    while time.monotonic() < min(until_then, quiet_since + 2 * GONE_AFTER):
        time.sleep(1.0)
        last, now = now, _seen(hosts)
        if [things for things, _ in now] != [things for things, _ in last]:
            quiet_since = time.monotonic()
    return now


def _seen(hosts: list[Host]) -> list[tuple[Counter[str], int]]:
    return [(found(host), open_files(host)) for host in hosts]


def _left(hosts: list[Host], before: list[tuple[Counter[str], int]], moves: int) -> Iterator[str]:
    """What a host has too much, or misses, when it has had time to tidy up."""
    for host, (things, files) in zip(hosts, before, strict=True):
        with suppress(TimeoutError):
            until("the host is as before", lambda: not more(things, found(host)), _WITHIN)  # noqa: B023
        yield from (f"h{host.number}: {what}" for what in more(things, found(host)))
        opened = open_files(host) - files
        if opened > max(10, moves * _FILES_A_MOVE):
            yield f"h{host.number}: {opened} more open files"


def _silent_liar(guest: Guest) -> Iterator[str]:
    """Whether it does send what must not come out: else nothing was tried."""
    with Capture(guest.host.netns, guest.tap) as sent:
        try:
            until("a forged frame at the tap", lambda: sent.count(source_ip=FORGED), _WITHIN)
        except TimeoutError as error:
            yield f"no forged frame was tried: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/hundred-moves", description=__doc__)
    parser.add_argument("moves", type=int, nargs="?", default=100, help="how many (100)")
    parser.add_argument("--hypervisor", choices=("libvirt", "qemu"), default="libvirt")
    given = parser.parse_args()
    result = run(given.moves, given.hypervisor)
    print(f"{result.moves} moves, downtime at most {max(result.downtimes_ms):.0f} ms by QEMU")
    print(f"{result.lines} lines on one connection, the longest gap {result.longest_gap_ms} ms")
    print(f"{result.knocks} knocks at a closed port")
    print("\n".join(result.problems) or "nothing forbidden, nothing lost, nothing left behind")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
