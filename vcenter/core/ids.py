"""Ids that follow from content, so that saying the same thing twice makes one record."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("7d0c2c1e-5b0f-4f0a-9f0e-6d1b8c9e2a11")


def derived_id(*parts: str) -> str:
    """The same parts give the same UUID, in every run (RFC 9562, version 5)."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))
