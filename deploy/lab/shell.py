"""Running commands, in a network namespace or not, with errors that say what was said."""

import subprocess
from collections.abc import Sequence


class CommandError(RuntimeError):
    """A command failed; the message holds what it printed, for there is no other record."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit {code}: {output.strip()[-2000:]}")
        self.code = code
        self.output = output


def inside(netns: str | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in a namespace (exec'd: the pid stays the same)."""
    return ["ip", "netns", "exec", netns, *argv] if netns else list(argv)


def run(
    argv: Sequence[str],
    *,
    netns: str | None = None,
    check: bool = True,
    timeout: float = 60.0,
    stdin: str | None = None,
) -> str:
    """Run to the end and return what was printed; raise CommandError when it fails."""
    full = inside(netns, argv)
    done = subprocess.run(
        full,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise CommandError(full, done.returncode, done.stdout)
    return done.stdout


def succeeds(argv: Sequence[str], *, netns: str | None = None, timeout: float = 60.0) -> bool:
    """Whether a command ends well within its time."""
    try:
        run(argv, netns=netns, timeout=timeout)
    except (CommandError, subprocess.TimeoutExpired, OSError):
        return False
    return True


def ip_batch(commands: Sequence[str], *, netns: str | None = None) -> None:
    """Several `ip` commands in one process: setting up a lab is mostly these."""
    run(["ip", "-batch", "-"], netns=netns, stdin="\n".join(commands) + "\n")
