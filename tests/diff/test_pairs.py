from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.diff.answers import Answer
from replay.diff.pairs import Accounts, join
from replay.errors import InputError

from .conftest import make_answer

NUMBERS = st.lists(st.integers(0, 30), unique=True).map(sorted)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_every_row_comes_out_once_in_order_beside_its_own(
    baseline: list[int], candidate: list[int], control: list[int]
) -> None:
    trios = list(join(*(iter([make_answer(n) for n in side]) for side in (baseline, candidate, control))))
    for place, side in enumerate((baseline, candidate, control)):
        assert [int(trio[place].exchange_id) for trio in trios if trio[place]] == side
    keys = [{answer[:2] for answer in trio if answer} for trio in trios]
    assert all(len(key) == 1 for key in keys)
    assert len(trios) == len({*baseline, *candidate, *control})


def test_laps_are_exchanges_of_their_own() -> None:
    rows = [make_answer(1, lap=0), make_answer(1, lap=1)]
    trios = list(join(iter(rows), iter(rows[1:])))
    assert [trio.candidate for trio in trios] == [None, rows[1]]


@pytest.mark.parametrize(("rows", "word"), [([1, 1], "twice"), ([2, 1], "out of order")])
def test_rows_that_are_not_sorted_are_refused(rows: list[int], word: str) -> None:
    with pytest.raises(InputError, match=f"the candidate holds exchange 0000000{rows[1]} lap 0 {word}"):
        list(join(iter([]), iter([make_answer(n) for n in rows])))


FAILED: dict[str, Any] = {"status": None, "error": "reset"}
BOOKED = [
    pytest.param(make_answer(), make_answer(), None, id="paired"),
    pytest.param(make_answer(), make_answer(**FAILED), None, id="one failed: that is a difference"),
    pytest.param(make_answer(), None, "candidate: missing", id="missing"),
    pytest.param(None, make_answer(), "baseline: missing", id="new"),
    pytest.param(make_answer(), make_answer(status=None, skipped="late"), "candidate: skipped (late)", id="skipped"),
    pytest.param(make_answer(**FAILED), make_answer(**FAILED), "both: failed", id="both failed"),
]  # fmt: skip


@pytest.mark.parametrize(("baseline", "other", "reason"), BOOKED)
def test_books(baseline: Answer | None, other: Answer | None, reason: str | None) -> None:
    accounts = Accounts("candidate")
    assert accounts.enter(baseline, other) is (reason is None)
    book = accounts.close()
    assert dict(book.unpaired) == ({} if reason is None else {reason: 1})
    assert book.exchanges == book.paired + sum(book.unpaired.values()) == 1
