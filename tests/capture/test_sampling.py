"""Sampling: the same for everybody with the key, and honest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.capture import sampling
from replay.errors import UsageError

KEY = b"k" * 32


@given(st.binary(max_size=40), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_session_in_a_small_sample_is_in_every_larger_one(session: bytes, a: float, b: float) -> None:
    if sampling.keep(session, min(a, b), KEY):
        assert sampling.keep(session, max(a, b), KEY)


def test_everything_is_kept_at_one() -> None:
    assert all(sampling.keep(str(i).encode(), 1.0, KEY) for i in range(1000))


def test_weights_give_the_total_back() -> None:
    # Binomial: 20,000 sessions at 5 %; four standard deviations are 123 of 1,000.
    kept = sum(sampling.keep(str(i).encode(), 0.05, KEY) for i in range(20_000))
    assert abs(kept - 1000) < 124
    assert sampling.weight(0.05) == 20


def test_the_key_decides_who_is_kept() -> None:
    names = [str(i).encode() for i in range(1000)]
    assert [sampling.keep(n, 0.5, KEY) for n in names] != [sampling.keep(n, 0.5, b"j" * 32) for n in names]


def test_a_session_id_tells_sessions_apart_and_no_address() -> None:
    one = sampling.session_key("10.1.2.3", [("User-Agent", "a")])
    other = sampling.session_key("10.1.2.3", [("user-agent", "b")])
    assert sampling.session_id(one, KEY) != sampling.session_id(other, KEY)
    assert (
        sampling.session_id(one, KEY) == sampling.session_id(one, KEY) != sampling.session_id(one, b"j" * 32)
    )
    assert len(sampling.session_id(one, KEY)) == 16


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("1", 1.0), ("100 %", 1.0), ("0.1%", 0.001)]
)
def test_shares(text: str, share: float) -> None:
    assert sampling.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "0", "5", "101%", "-1%", "x", "5%%", "5% x", "nan"])
def test_bad_shares_are_named(text: str) -> None:
    with pytest.raises(UsageError, match="--sample"):
        sampling.parse_share(text)
