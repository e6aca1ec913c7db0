from __future__ import annotations

import gzip
from typing import Any

import pytest

from replay.diff.answers import Answer, Comparer, CompareSettings
from replay.diff.rules import compile_rules

from .conftest import make_answer

TEXT = (("Content-Type", "text/plain"),)
FAILED: dict[str, Any] = {"status": None, "error": "reset", "response_body": None, "response_size": 0}


def packed(level: int) -> Answer:
    headers = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))
    return make_answer(body=gzip.compress(b'{"a":1}', level), response_headers=headers)


CASES = [
    pytest.param(make_answer(), make_answer(), [], id="alike"),
    pytest.param(make_answer(body={"a": 1, "b": 2}), make_answer(body=b'{ "b": 2, "a": 1 }'), [], id="equal trees"),
    pytest.param(packed(1), packed(9), [], id="packed otherwise"),
    pytest.param(make_answer(body={"a": 1}), make_answer(body={"a": 2}), [("$.a", "value")], id="a value"),
    pytest.param(make_answer(body={"a": 1}), make_answer(body={"e": 1}, status=500), [("status", "status")],
                 id="another class of status is all there is to say"),
    pytest.param(make_answer(body={"a": 1}), make_answer(body={"a": 2}, status=201),
                 [("status", "status"), ("$.a", "value")], id="within a class the rest counts too"),
    pytest.param(make_answer(), make_answer(**FAILED), [("error", "error")], id="no answer now"),
    pytest.param(make_answer(**FAILED), make_answer(), [("error", "error")], id="an answer now"),
    pytest.param(make_answer(**FAILED), make_answer(**{**FAILED, "error": "timeout"}), [("error", "error")],
                 id="fails otherwise"),
    pytest.param(make_answer(body=b'"a"'), make_answer(body=b'"a"', response_headers=TEXT),
                 [("headers.content-type", "value"), ("$", "type")], id="same bytes, said to be something else"),
    pytest.param(make_answer(body=b"oops"), make_answer(body={}), [("$", "type")], id="one is no JSON"),
    pytest.param(make_answer(body=b"abc", truncated=True, response_size=9), make_answer(body=b"abcd", response_size=9),
                 [], id="cut: alike up to there, same size"),
    pytest.param(make_answer(body=b"abc", truncated=True, response_size=9), make_answer(body=b"abcd", response_size=8),
                 [("$", "value")], id="cut: alike up to there, another size"),
    pytest.param(make_answer(body=b"abc", truncated=True), make_answer(body=b"abX"), [("$", "unexplained")],
                 id="cut: other bytes"),
    pytest.param(make_answer(response_body=None, response_size=7), make_answer(response_body=None, response_size=8),
                 [("$", "value")], id="not stored: sizes"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "expected"), CASES)
def test_answers(left: Answer, right: Answer, expected: list[tuple[str, str]]) -> None:
    found = Comparer(CompareSettings()).differences(left, right)
    assert [(item.path, item.kind) for item in found] == expected


def test_the_baseline_is_lifted_once_for_both_comparisons_and_stays_right() -> None:
    comparer = Comparer(CompareSettings())
    for number in range(3):
        old = make_answer(number, {"a": number})
        assert comparer.differences(old, make_answer(number, {"a": 9}))[0].left == number
        assert comparer.differences(old, make_answer(number, {"a": 8}))[0].left == number


def test_rules_take_away_and_count() -> None:
    rules = compile_rules([
        {"path": "$.items", "unordered": True},
        {"path": "$.at", "ignore": True, "endpoint": "GET *"},
        {"path": "$.never", "ignore": True},
    ])  # fmt: skip
    comparer = Comparer(CompareSettings(rules=rules))
    left = make_answer(body={"items": [{"n": 1}, {"n": 2}, {"n": 3}], "at": 1})
    right = make_answer(body={"items": [{"n": 3}, {"n": 1}, {"n": 5}], "at": 2})
    found = comparer.differences(left, right)
    assert [(item.path, item.left, item.right) for item in found] == [("$.items[1].n", 2, 5)]
    assert comparer.book.matched == [1, 1, 0]


def test_what_bodies_were_not_is_noted() -> None:
    comparer = Comparer(CompareSettings())
    comparer.differences(make_answer(body=b"{"), make_answer(body=b"["))
    assert comparer.notes == {"is not JSON": 2}
