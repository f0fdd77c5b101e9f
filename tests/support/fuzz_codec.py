"""`python -m tests.support.fuzz_codec SECONDS`: the codec under bytes that atheris looks for, by
the branches that each of them reaches. Ends with the bytes at the first defect."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["common.codec", "common.model"]):
    from tests.support.codecs import try_bytes
    from tests.support.generated import MOST_CHOICES


def main(seconds: int) -> None:
    options = [f"-max_total_time={seconds}", f"-max_len={MOST_CHOICES}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options], try_bytes)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]))
