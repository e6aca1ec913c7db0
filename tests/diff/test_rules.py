from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from replay.diff.compare import tree_differences
from replay.diff.rules import ACTIONS, RuleBook, compile_rule, compile_rules
from replay.errors import ConfigError
from replay.findings import Difference


def value(left: Any, right: Any, path: str = "$.a", kind: str = "value") -> Difference:
    return Difference(path, kind, left, right)


EXCUSED = [
    pytest.param({"ignore": True}, [value(1, 2), value(None, 1, kind="extra")], [value(1, 2, "$.b")], id="ignore"),
    pytest.param({"tolerance": 0.5}, [value(1, 1.5), value("1.0", "1.2")], [value(1, 1.6), value("x", "y"),
                 value(True, False)], id="tolerance"),
    pytest.param({"relative": 0.1}, [value(100, 109)], [value(100, 112)], id="relative"),
    pytest.param({"mask": r"v\d+"}, [value("/v1/x", "/v22/x")], [value("/v1/x", "/v1/y"), value(1, 2)], id="mask"),
    pytest.param({"type_only": True}, [value("a", "b")], [value(1, "1", kind="type")], id="type_only"),
    pytest.param({"null_is_missing": True}, [value(None, None, kind="missing")], [value(1, None, kind="missing")],
                 id="null_is_missing"),
    pytest.param({"ignore_case": True}, [value("A", "a")], [value("A", "b")], id="ignore_case"),
    pytest.param({"unordered": True}, [value([1, 2], [2, 1], kind="order")], [value(1, 2)], id="unordered"),
    pytest.param(
        {"time": 2},
        [value("2026-03-01T12:00:00Z", "2026-03-01T13:00:01+01:00"), value(1_772_366_400, 1_772_366_402),
         value("1772366400000", "1772366401000"), value(1_772_366_400_000_000_000, 1_772_366_401_000_000_000),
         value("Sun, 01 Mar 2026 12:00:00 GMT", "Sun, 01 Mar 2026 12:00:02 GMT")],
        [value("2026-03-01T12:00:00Z", "2026-03-01T12:00:03Z"), value(1, 2), value("soon", "late"), value(True, False),
         value("2026-03-01T12:00:00Z", None, kind="type")], id="time"),
    pytest.param({"query_order": True}, [value("/a?x=1&y=2#f", "/a?y=2&x=1#f")],
                 [value("/a?x=1", "/b?x=1"), value("/a?x=1&x=2", "/a?x=1"), value("/a?x=1#f", "/a?x=1#g")],
                 id="query_order"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "excused", "kept"), EXCUSED)
def test_actions(action: dict[str, Any], excused: list[Difference], kept: list[Difference]) -> None:
    book = RuleBook([compile_rule({"path": "$.a", **action})])
    assert book.keep("GET /x", [*excused, *kept]) == kept
    assert book.matched == [len(excused)]


SCOPES = [
    ("*", "GET /a/{id}", True),
    ("GET /a/*", "GET /a/{id}", True),
    ("GET /a/{id}", "GET /a/{id}", True),
    ("GET /a/[x]", "GET /a/[x]", True),
    ("POST *", "GET /a", False),
]


@pytest.mark.parametrize(("scope", "endpoint", "applies"), SCOPES)
def test_a_rule_applies_to_the_endpoints_of_its_glob(scope: str, endpoint: str, applies: bool) -> None:
    book = RuleBook([compile_rule({"path": "$", "endpoint": scope, "ignore": True})])
    assert (book.keep(endpoint, [value(1, 2)]) == []) is applies


def test_the_first_rule_that_excuses_gets_the_count() -> None:
    book = RuleBook(compile_rules([{"path": "$.b", "ignore": True}, {"path": "$.a", "ignore": True},
                                   {"path": "$", "ignore": True}]))  # fmt: skip
    assert book.keep("GET /", [value(1, 2)]) == []
    assert book.matched == [0, 1, 0]
    assert book.rules[1].text == "ignore $.a"


def test_a_key_pairs_items_wherever_they_stand() -> None:
    old = [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}, {"id": 3, "n": "c"}]
    new = [{"id": 9, "n": "new"}, {"id": 3, "n": "c"}, {"id": 1, "n": "a"}, {"id": 2, "n": "B"}]
    book = RuleBook([compile_rule({"path": "$.items", "key": "id"})])
    found = tree_differences({"items": old}, {"items": new}, lists=book.lists("GET /"))
    assert [(one.path, one.kind, one.left, one.right) for one in found] == [
        ("$.items[1].n", "value", "b", "B"),
        ("$.items[0]", "extra", None, {"id": 9, "n": "new"}),
    ]
    assert book.matched == [1]


def test_items_without_the_key_are_gone_or_come() -> None:
    book = RuleBook([compile_rule({"path": "$", "key": "id"})])
    found = tree_differences([{"n": 1}, {"id": 1}], [{"id": 1}, {"n": 2}, 7], lists=book.lists("GET /"))
    assert [(one.path, one.kind) for one in found] == [
        ("$[0]", "missing"),
        ("$[1]", "extra"),
        ("$[2]", "extra"),
    ]


def test_the_pages_examples_are_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert sum(len(compile_rules(tomllib.loads(block)["diff"].get("rule", ()))) for block in blocks) >= 6
    named = set(re.findall(r"^\| `(\w+) = ", page, re.MULTILINE))
    assert named == set(ACTIONS)


ODD = [
    ({"path": "$", "key": 3}, r"\(\$\): key needs the name of a field"),
    ({"path": "$", "time": "5s"}, r"\(\$\): time needs a number"),
    ({"ignore": True}, r"diff.rule 1: needs a path"),
    ({"path": "$"}, r"diff.rule 1 \(\$\): needs exactly one action of ignore, tolerance"),
    ({"path": "$", "ignore": True, "mask": "x"}, "exactly one action"),
    ({"path": "$", "ignroe": True}, "'ignroe' is none of path, endpoint, ignore"),
    ({"path": "$", "tolerance": "much"}, r"\(\$\): tolerance needs a number of 0 or more"),
    ({"path": "$", "tolerance": -1}, "number of 0 or more"),
    ({"path": "$", "tolerance": True}, "number of 0 or more"),
    ({"path": "$", "mask": "("}, "is no regular expression"),
    ({"path": "items", "ignore": True}, r"path 'items' starts with none of"),
]


@pytest.mark.parametrize(("raw", "message"), ODD)
def test_a_rule_that_is_off_names_itself_and_the_fix(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compile_rules([raw])
    assert "\n" not in str(caught.value)
