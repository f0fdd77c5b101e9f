"""`python -m vserver` is `vserver`."""

from vserver.cli import main

main()
