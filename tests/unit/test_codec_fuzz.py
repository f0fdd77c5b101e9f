"""The codec under any bytes. `scripts/fuzz codec` does the same led by coverage, with atheris."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings

from tests.support.codecs import CODECS, Codec, try_bytes, try_message
from tests.support.generated import Choices, message, messages

EXAMPLES = int(os.environ.get("VSIGNAL_FUZZ_EXAMPLES", "500"))
MANY = settings(max_examples=EXAMPLES, deadline=None, database=None)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.kind.DESCRIPTOR.name)
def test_any_message_is_refused_or_read_as_it_is_written(codec: Codec) -> None:
    MANY(given(messages(codec.kind.DESCRIPTOR))(lambda said: try_message(codec, said)))()


@pytest.mark.parametrize("number", range(len(CODECS)))
def test_a_message_with_a_wrong_byte_is_none_or_as_good_as_any(number: int) -> None:
    kind = CODECS[number].kind
    right = message(kind.DESCRIPTOR, Choices(bytes(range(1, 256)))).SerializeToString()
    for at in range(len(right)):
        for value in (0, 0x7F, 0xFF, right[at] ^ 1):
            try_bytes(bytes([number, 0x80]) + right[:at] + bytes([value]) + right[at + 1 :])
