"""A refusal on the wire: whole where it fits, cut where it does not, and never too long to hear."""

from __future__ import annotations

import base64
from urllib.parse import quote

from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Reason, Refusal, Violation, invalid
from common.status import refusal_to_status
from common.trimming import cut

TRAILERS = 8192 - 500  # gRPC's soft limit, and what else is in trailers
LONG = st.integers(0, 5000).flatmap(
    lambda n: st.sampled_from("aé\U0001f600%\n").map(lambda c: c * n)
)


@given(st.lists(st.tuples(LONG, LONG), max_size=40), st.dictionaries(LONG, LONG, max_size=9))
def test_it_always_fits_into_the_trailers(
    said: list[tuple[str, str]], evidence: dict[str, str]
) -> None:
    violations = tuple(Violation(*pair) for pair in said)
    message = invalid(list(violations)).message
    refusal = Refusal(
        Reason.OVERLOADED, message, violations=violations, evidence=evidence, retry_after=1.5
    )
    status = refusal_to_status(refusal)
    in_base64 = len(base64.b64encode(status.SerializeToString()))
    assert len(_percent(status.message)) + in_base64 < TRAILERS
    assert status.details[0].Is(ErrorInfo.DESCRIPTOR)


def _percent(text: str) -> str:
    """As gRPC sends `grpc-message`: printable ASCII as it is."""
    plain = [c if " " <= c <= "~" and c != "%" else quote(c, safe="") for c in text]
    return "".join(plain)


def test_what_was_left_out_is_counted() -> None:
    violations = [Violation(f"vm.interfaces[{n}].mac", "not a MAC address") for n in range(1000)]
    status = refusal_to_status(invalid(violations))
    bad = BadRequest()
    assert status.details[1].Unpack(bad)
    *shown, last = bad.field_violations
    assert shown[0].field == "vm.interfaces[0].mac"
    assert last.description == f"and {1000 - len(shown)} more"
    assert len(shown) > 20


def test_a_text_that_fits_is_left_alone() -> None:
    assert cut("déjà vu", 100) == "déjà vu"
    assert cut("x" * 100, 100) == "x" * 100
    assert cut("x" * 101, 100) == "x" * 97 + "..."
    assert cut("é" * 40, 100) == "é" * 16 + "..."
