"""5.4, Virtualization Server Lookup: which vServer holds a VM (A16), from memory alone."""

from __future__ import annotations

from vcenter.core.packed import Kind
from vcenter.core.view import View


def policy_of(view: View, kind: Kind) -> str:
    """The effective profile's hash, the same for all VMs of a kind."""
    return view.profile_over(kind.tenant, kind.group, kind.profile).digest()
