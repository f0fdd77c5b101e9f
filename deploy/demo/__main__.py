"""`./scripts/demo`: exits 0 only if everything in the story was seen to be true."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.control import connected
from deploy.demo.federation import FederationStory
from deploy.demo.federation_memory import FederationMemoryStage
from deploy.demo.federation_real import FederationRealStage
from deploy.demo.memory import MemoryStage
from deploy.demo.real import RealStage
from deploy.demo.story import WEB, Story
from deploy.demo.teller import Teller
from deploy.lab.available import why_unavailable
from deploy.lab.lab import Lab


def main() -> int:
    options = _parser().parse_args()
    if options.down:
        Lab.existing(options.name).down()
        return 0
    teller = Teller()
    played = _federation(options, teller) if options.federation else _main_job(options, teller)
    return _tell(options, teller, played)


@dataclass(frozen=True)
class Played:
    """A stage, what is played on it, what was seen, and what to try next."""

    stage: RealStage | MemoryStage
    play: Callable[[], None]
    seen: dict[str, Any]
    lines: Callable[[], list[str]]


def _tell(options: argparse.Namespace, teller: Teller, played: Played) -> int:
    started = time.monotonic()
    try:
        played.stage.up()
        played.play()
        played.seen["ok"] = not teller.failures
    except Exception:  # noqa: BLE001 - whatever went wrong, the story says so and cleans up
        teller.console.print_exception(max_frames=5)
        teller.console.print(played.stage.logs(), markup=False)
        teller.failures.append("the story was interrupted")
    finally:
        if options.json:
            Path(options.json).write_text(json.dumps(played.seen, indent=2) + "\n")
        if not options.keep:
            played.stage.down()
    return _verdict(options, teller, played, time.monotonic() - started)


def _is_real(options: argparse.Namespace, teller: Teller, what: str) -> bool:
    reason = "asked for" if options.memory else why_unavailable()
    if reason is not None:
        teller.console.print(f"vsignal: on the memory adaptors, no real VMs ({reason})")
        return False
    teller.console.print(f"vsignal: real libvirt, real QEMU guests, {what}")
    with suppress(FileNotFoundError):
        Lab.existing(options.name).down()  # what an earlier --keep left
    return True


def _main_job(options: argparse.Namespace, teller: Teller) -> Played:
    real = _is_real(options, teller, "three hosts")
    stage = RealStage(options.name) if real else MemoryStage()
    story = Story(stage, teller)

    def play() -> None:
        with connected(stage.target, stage.operator) as control:
            story.play(control)

    return Played(stage, play, story.seen, lambda: stage.try_next(WEB))


def _federation(options: argparse.Namespace, teller: Teller) -> Played:
    real = _is_real(options, teller, "two data centers of two hosts")
    stage = FederationRealStage(options.name) if real else FederationMemoryStage()
    story = FederationStory(stage, teller)
    return Played(stage, story.play, story.seen, stage.lines)


def _verdict(options: argparse.Namespace, teller: Teller, played: Played, took: float) -> int:
    for failure in teller.failures:
        teller.console.print(f"[red]not true:[/red] {failure}")
    verdict = "all of it was seen to be true" if played.seen["ok"] else "FAILED"
    teller.console.print(f"\n[bold]{verdict}[/bold], in {took:.0f} s")
    if options.keep:
        teller.console.print("\nThe lab stays up. Try next:")
        for line in played.lines():
            teller.console.print(f"   {line}", soft_wrap=True, markup=False)
    return 0 if played.seen["ok"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description=__doc__)
    parser.add_argument(
        "--federation",
        action="store_true",
        help="two data centers, and a move from one to the other",
    )
    parser.add_argument("--json", metavar="FILE", help="write what was seen")
    parser.add_argument("--keep", action="store_true", help="leave the lab up, say what to try")
    parser.add_argument("--down", action="store_true", help="take away what --keep left")
    parser.add_argument("--memory", action="store_true", help="memory adaptors, even as root")
    parser.add_argument("--name", default="demo", help="the lab's name, for several side by side")
    return parser


if __name__ == "__main__":
    sys.exit(main())
