"""`python -m deploy.lab up|down|status|image`: a lab from the command line."""

import argparse
import sys
import time

from deploy.lab import image, netns
from deploy.lab.available import why_unavailable
from deploy.lab.lab import Lab


def main() -> int:
    options = _parser().parse_args()
    if reason := why_unavailable():
        print(f"no lab on this machine: {reason}", file=sys.stderr)
        return 1
    if options.command == "up":
        _up(Lab(options.name, options.hosts))
    elif options.command == "image":
        print(image.ensure().initrd.parent)
    elif options.command == "down":
        Lab.existing(options.name).down()
    else:
        _status(Lab.existing(options.name))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.lab", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "image"])
    parser.add_argument("--name", default="lab", help="the run id; everything is named after it")
    parser.add_argument("--hosts", type=int, default=3)
    return parser


def _up(lab: Lab) -> None:
    start = time.monotonic()
    lab.up()
    print(f"up in {time.monotonic() - start:.1f} s")
    _status(lab)


def _status(lab: Lab) -> None:
    if lab.names.underlay not in netns.existing():
        print(f"{lab.names.run_id}: down")
        return
    print(f"vcenter  {lab.vcenter_address:<12} namespace {lab.vcenter_netns}")
    for host in lab.hosts:
        guests = " ".join(host.guests()) if host.libvirtd.pid else "(libvirtd is not running)"
        print(f"host {host.number}   {host.address:<12} namespace {host.netns}  guests: {guests}")
        print(f"         {host.libvirt_uri}")


if __name__ == "__main__":
    sys.exit(main())
