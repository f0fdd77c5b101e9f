"""The policer: a burst, then the rate."""

from common.model.profile import Rate
from vserver.network.bucket import TokenBucket


def test_a_burst_passes_and_then_the_rate() -> None:
    bucket = TokenBucket(Rate(80_000, burst_bytes=20_000), now=0.0)
    assert [bucket.takes(10_000, 0.0) for _ in range(3)] == [True, True, False]
    assert not bucket.takes(10_000, 0.5)
    assert bucket.takes(10_000, 1.0)


def test_tokens_do_not_pile_up() -> None:
    bucket = TokenBucket(Rate(80_000, burst_bytes=20_000), now=0.0)
    assert [bucket.takes(10_000, 1000.0) for _ in range(3)] == [True, True, False]
