"""The composition of vctl, and its way out: every end has a documented exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from vcenter.ctl.alert import alert, events
from vcenter.ctl.audit import audit
from vcenter.ctl.cert import cert
from vcenter.ctl.commands import Group
from vcenter.ctl.domain import domain
from vcenter.ctl.explain import completion, explain, version
from vcenter.ctl.failure import Exit, Failure
from vcenter.ctl.group import group
from vcenter.ctl.network import network
from vcenter.ctl.op import op
from vcenter.ctl.profile import profile
from vcenter.ctl.server import server
from vcenter.ctl.tenant import tenant
from vcenter.ctl.vm import vm


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Where the VMs are, where they go, and what their network allows.

    \b
    Examples:
      vctl vm where web-1
      vctl vm move web-1 --to host-7
      vctl events -o json
    \b
    Exit codes:
      0  done                          4  the vCenter is unavailable
      1  refused                       5  timed out waiting
      2  the command line is wrong     6  the operation failed or was cancelled
      3  not found                     7  not permitted
    """


for _command in (
    server, vm, tenant, network, group, profile, op, domain, cert, events, alert,
    audit, explain, completion, version,
):  # fmt: skip
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code."""
    try:
        code = cli.main(arguments, prog_name="vctl", standalone_mode=False)
    except Failure as error:
        error.show()
        return error.code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else Exit.OK


def main() -> None:
    """The entry point."""
    sys.exit(run())


if __name__ == "__main__":
    main()
