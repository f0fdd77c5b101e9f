"""Whether this machine can be a lab: asked by the tests, the demo and `scripts/setup`."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from deploy.lab import shell

_TOOLS = ("ip", "nft", "libvirtd", "virsh", "qemu-system-x86_64", "cpio", "depmod", "ping", "tc")


def why_unavailable() -> str | None:
    """The reason why no lab can run here, or None."""
    if os.geteuid() != 0:
        return "not root: namespaces and libvirtd need it"
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if not Path("/bin/busybox").exists():
        missing.append("busybox")
    if missing:
        return f"missing programs: {', '.join(missing)}"
    if importlib.util.find_spec("libvirt") is None:
        return "libvirt-python is not installed: it builds only where libvirt-dev is"
    if not shell.succeeds(["unshare", "--net", "--mount", "--uts", "true"]):
        return "namespaces may not be made here"
    return None


if __name__ == "__main__":
    if found := why_unavailable():
        print(found)
        sys.exit(1)
