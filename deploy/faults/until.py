"""Waiting for what a fault's victims do again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import grpc

T = TypeVar("T")


class Gone(Exception):
    """What was waited for did not come."""


def until(what: str, look: Callable[[], T], timeout: float = 40.0) -> T:
    """A vCenter that does not answer, because it was just ended, is no answer yet."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(grpc.RpcError):
            if found := look():
                return found
        if time.monotonic() > deadline:
            raise Gone(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.05)
