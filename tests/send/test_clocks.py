"""Clocks of machines, reconciled with the master's."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from replay.send.clocks import best


@given(st.integers(-(10**12), 10**12), st.integers(0, 1000))
def test_the_offset_is_within_its_error(apart: int, seed: int) -> None:
    draw = Random(seed)
    exchanges, now = [], 10**15
    for _ in range(8):
        there, back = draw.randrange(1, 10**7), draw.randrange(1, 10**7)
        exchanges.append((now, now + there + apart, now + there + back))
        now += 10**8
    found = best(exchanges)
    assert abs(found.offset_ns - apart) <= found.error_ns + 1
    assert found.error_ns <= min(received - sent for sent, _, received in exchanges) // 2 + 1
