"""For how long a guest gave no answer, from when it was asked and when it answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vserver.network.port import Sign


class Silences:
    """`longest`: seconds from a question that went unanswered to the next answer. How late whoever
    asks is with its next question does not count. `answers` until now."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.answers = 0
        self._asked: float | None = None  # the first question since the last answer

    def take(self, signs: Iterable[Sign]) -> None:
        """In the order of their times."""
        for sign in signs:
            if not sign.is_answer:
                self._asked = sign.at if self._asked is None else self._asked
                continue
            self.answers += 1
            if self._asked is not None:
                self.longest = max(self.longest, sign.at - self._asked)
                self._asked = None
