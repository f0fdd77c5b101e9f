"""Texts that have to fit into so many bytes, whatever somebody has put into them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

EACH_BYTES = 400
_MORE = "..."


def cut(text: str, most: int) -> str:
    """The text, or its beginning and "...": at most so many bytes when percent-encoded, which is
    how gRPC sends it, and never fewer than in UTF-8."""
    if len(text) * 12 <= most or _cost(text) <= most:
        return text
    left, kept = most - len(_MORE), 0
    for character in text:
        left -= _cost(character)
        if left < 0:
            break
        kept += 1
    return text[:kept] + _MORE


def first_of(pairs: Iterable[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """The first pairs of texts, each text cut, that together take no more than so many bytes."""
    kept: list[tuple[str, str]] = []
    for one, other in pairs:
        pair = cut(one, EACH_BYTES), cut(other, EACH_BYTES)
        most -= sum(len(text.encode()) for text in pair) + _FRAMING
        if most < 0:
            break
        kept.append(pair)
    return kept


_FRAMING = 10  # bytes of tags and lengths around a pair, in a message of protobuf


def _cost(text: str) -> int:
    return len(quote(text, safe=_PLAIN, errors="surrogatepass"))


_PLAIN = "".join(chr(code) for code in range(32, 127) if chr(code) != "%")
