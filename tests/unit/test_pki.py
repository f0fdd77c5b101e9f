"""What QEMU finds where it looks for certificates."""

from __future__ import annotations

import base64
import math
from fractions import Fraction
from pathlib import Path

from tests.support.domain import Ca
from vserver.hypervisor.pki import publish


def test_both_ends_of_a_copy_find_theirs_and_others_read_no_key(tmp_path: Path) -> None:
    bundle = Ca().bundle("vserver/host-1")
    publish(bundle, tmp_path / "pki")
    files = {file.name: file for file in (tmp_path / "pki").iterdir()}
    expected = {"ca-cert.pem", "dh-params.pem"}
    expected |= {f"{end}-{what}.pem" for end in ("server", "client") for what in ("cert", "key")}
    assert set(files) == expected
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o640}
    assert files["client-key.pem"].read_bytes() == bundle.key


def test_the_group_is_the_one_of_rfc_7919(tmp_path: Path) -> None:
    publish(Ca().bundle("vserver/host-1"), tmp_path)
    lines = (tmp_path / "dh-params.pem").read_text().splitlines()
    der = base64.b64decode("".join(lines[1:-1]))  # SEQUENCE { INTEGER p, INTEGER g }
    p, g = int.from_bytes(der[8:265]), der[-1]
    e = sum(Fraction(1, math.factorial(n)) for n in range(400))  # to more than 2,000 bits
    assert p == 2**2048 - 2**1984 + (math.floor(2**1918 * e) + 560316) * 2**64 - 1
    assert g == 2
