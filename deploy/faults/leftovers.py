"""What a host of the lab has of everything that a move makes and must take away again."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from deploy.lab import Host, netns

# Numbers that a hypervisor gives anew each time, and its own diaries.
_NUMBERED = re.compile(r"(?<=domain-)\d+|(?<=vnet)\d+|\.(log|pid)(\.\d+)?$|-(wal|shm|journal)$")


def found(host: Host) -> Counter[str]:
    """Links, rules, forwarding entries, processes and files, each with how many there are."""
    return Counter(
        [*_links(host), *_rules(host), *_entries(host), *_processes(host), *_files(host)]
    )


def more(before: Counter[str], now: Counter[str]) -> list[str]:
    """What there is now and was not; and what has gone."""
    new, gone = now - before, before - now
    return [f"+{n} {what}" for what, n in new.items()] + [
        f"-{n} {what}" for what, n in gone.items()
    ]


def _links(host: Host) -> list[str]:
    lines = host.run(["ip", "-br", "link"]).splitlines()
    return [f"link {_plain(line.split()[0].partition('@')[0])}" for line in lines]


def _rules(host: Host) -> list[str]:
    """Counters run on, and handles are given anew."""
    text = re.sub(r"packets \d+ bytes \d+", "", host.run(["nft", "list", "ruleset"]))
    return [f"rule {_plain(line.strip())}" for line in text.splitlines() if line.strip()]


def _entries(host: Host) -> list[str]:
    """What our agents enter; what bridges learn by themselves goes by itself."""
    lines = host.run(["bridge", "fdb", "show"]).splitlines()
    return [f"forwarding {line}" for line in lines if " dst " in line]


def _processes(host: Host) -> list[str]:
    names = []
    for pid in netns.pids(host.netns):
        try:
            names.append(f"process {Path(f'/proc/{pid}/comm').read_text().strip()}")
        except OSError:
            continue  # it has just ended
    return names


def _files(host: Host) -> list[str]:
    return [f"file {_plain(str(f.relative_to(host.work)))}" for f in host.work.rglob("*")]


def _plain(name: str) -> str:
    return _NUMBERED.sub("", name)


def open_files(host: Host) -> int:
    """Of all processes of the host."""
    count = 0
    for pid in netns.pids(host.netns):
        try:
            count += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue
    return count
