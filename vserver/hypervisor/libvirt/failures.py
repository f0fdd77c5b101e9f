"""libvirt's errors as ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from common.errors import Reason, Refusal

T = TypeVar("T")


def guarded(work: Callable[[Any], T], conn: Any) -> T:
    """Do it, in a worker thread. A connection that broke under a call leaves it unknown."""
    try:
        return work(conn)
    except libvirt.libvirtError as error:
        if is_alive(conn):
            raise failed(error) from error
        raise TimeoutError(f"libvirtd went away during a call: {error}") from error


def is_alive(conn: Any) -> bool:
    """Whether it can still be used; asks nobody."""
    try:
        return bool(conn.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def failed(error: Exception) -> Refusal:
    """The hypervisor's own words."""
    return Refusal(Reason.HYPERVISOR_FAILED, f"libvirt: {error}")


def has_code(error: Exception, *codes: int) -> bool:
    """Whether it is one of libvirt's VIR_ERR_ numbers."""
    return isinstance(error, libvirt.libvirtError) and error.get_error_code() in codes
