from __future__ import annotations

import pytest

from replay.diff.paths import compile_pattern, erase, render
from replay.errors import ConfigError

RENDERED = [
    ([], "$"),
    (["items", 3, "price"], "$.items[3].price"),
    (["odd key", "x.y", "", "é"], '$["odd key"]["x.y"][""]["é"]'),
    (['quo"te', "back\\slash", "a]b"], '$["quo\\"te"]["back\\\\slash"]["a]b"]'),
    (["\ud800"], '$["\\ud800"]'),
]

ERASED = [
    ("$.items[3].price", "$.items[*].price"),
    ("$[0][1]", "$[*][*]"),
    ('$.by_id["123"].name', "$.by_id.*.name"),
    ('$["5b1c2d3e-0000-4000-8000-00805f9b34fb"]', "$.*"),
    ("$.deadbeef1234", "$.*"),
    ("$.address1.line_2", "$.address1.line_2"),
    ('$["a[1]"]', '$["a[1]"]'),
    ("headers.x-foo", "headers.x-foo"),
    ("status", "status"),
]

MATCHED = [
    (
        "$.items[*].price",
        ["$.items[3].price", "$.items[3].price.net"],
        ["$.items[3].prices", "$.items.price"],
    ),
    ("$.items[0]", ["$.items[0]", "$.items[0].a"], ["$.items[1]", "$.items[00]"]),
    ("$..price", ["$.price", "$.a[1].b.price", "$.price.x"], ["$.a.xprice"]),
    ("$.a.*", ["$.a.b", '$.a["x y"]'], ["$.a", "$.ab"]),
    ("$.meta_*", ["$.meta_a", "$.meta_"], ["$.met", "$.a.meta_a"]),
    ('$["odd key"]', ['$["odd key"].x'], ["$.odd"]),
    ("headers.X-*", ["headers.x-foo"], ["headers.y"]),
    ("status", ["status"], ["$.status"]),
    ("$", ["$", "$.a", "$[0]"], ["status"]),
]

ODD = ["items", "", "$.", "$.a..", "$[", "$[x]", "$.a[*", "header.x"]


@pytest.mark.parametrize(("keys", "path"), RENDERED)
def test_a_path_says_where(keys: list[str | int], path: str) -> None:
    assert render(keys) == path


@pytest.mark.parametrize(("path", "erased"), ERASED)
def test_what_varies_is_erased(path: str, erased: str) -> None:
    assert erase(path) == erased


@pytest.mark.parametrize(("pattern", "hits", "misses"), MATCHED)
def test_patterns(pattern: str, hits: list[str], misses: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [path for path in hits + misses if compiled.match(path)] == hits


@pytest.mark.parametrize("pattern", ODD)
def test_an_odd_pattern_is_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"write e\.g\."):
        compile_pattern(pattern)
