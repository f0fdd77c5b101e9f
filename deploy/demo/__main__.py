"""`./scripts/demo`: exits 0 only if everything in the story was seen to be true."""

import argparse
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from deploy.demo.control import connected
from deploy.demo.real import RealStage
from deploy.demo.stage import Stage
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
    stage = _stage(options, teller)
    started = time.monotonic()
    story = Story(stage, teller)
    try:
        _play(stage, story, teller)
    finally:
        if options.json:
            Path(options.json).write_text(json.dumps(story.seen, indent=2) + "\n")
        if not options.keep:
            stage.down()
    took = time.monotonic() - started
    return _ending(options, teller, stage, story, took)


def _stage(options: argparse.Namespace, teller: Teller) -> Stage:
    reason = "asked for" if options.memory else why_unavailable()
    if reason is None:
        teller.console.print("vsignal: real libvirt, real QEMU guests, three hosts")
        with suppress(FileNotFoundError):
            Lab.existing(options.name).down()  # what an earlier --keep left
        return RealStage(options.name)
    from deploy.demo.memory import MemoryStage

    teller.console.print(f"vsignal: on the memory adaptors, no real VMs ({reason})")
    return MemoryStage()


def _play(stage: Stage, story: Story, teller: Teller) -> None:
    try:
        stage.up()
        with connected(stage.target, stage.operator) as control:
            story.play(control)
        story.seen["ok"] = not teller.failures
    except Exception:  # noqa: BLE001 - whatever went wrong, the story says so and cleans up
        teller.console.print_exception(max_frames=5)
        if isinstance(stage, RealStage):
            teller.console.print(stage.logs(), markup=False)
        teller.failures.append("the story was interrupted")


def _ending(
    options: argparse.Namespace, teller: Teller, stage: Stage, story: Story, took: float
) -> int:
    for failure in teller.failures:
        teller.console.print(f"[red]not true:[/red] {failure}")
    verdict = "all of it was seen to be true" if story.seen["ok"] else "FAILED"
    teller.console.print(f"\n[bold]{verdict}[/bold], in {took:.0f} s")
    if options.keep:
        teller.console.print("\nThe lab stays up. Try next:")
        for line in stage.try_next(WEB):
            teller.console.print(f"   {line}", soft_wrap=True, markup=False)
    return 0 if story.seen["ok"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write what was seen")
    parser.add_argument("--keep", action="store_true", help="leave the lab up, say what to try")
    parser.add_argument("--down", action="store_true", help="take away what --keep left")
    parser.add_argument("--memory", action="store_true", help="memory adaptors, even as root")
    parser.add_argument("--name", default="demo", help="the lab's name, for several side by side")
    return parser


if __name__ == "__main__":
    sys.exit(main())
