from __future__ import annotations

import copy
import json
import time
from decimal import Decimal

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.diff import compare
from replay.diff.compare import Alignment, body_differences, deepdiff, show, tree_differences
from replay.diff.lift import Lifted, lift
from replay.diff.paths import render

PROPERTY = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

# Few values, so that items repeat, move and nearly match; types that Python calls equal, on purpose.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([0.0, 1.0, 1.5, float("nan"), -0.0]),
    st.sampled_from(["", "a", "b", "1", "x\ny", "__typename"]),
    st.sampled_from([2**70, Decimal("0.1000000000000000000001")]),
)
KEYS = st.sampled_from(["a", "b", "c", "__typename", "odd key", "x.y", "0"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(SCALARS, max_size=8),
        st.dictionaries(KEYS, inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=25,
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[object, object]:
    """A tree, and the same tree after a few edits: the pairs that builds really give."""
    left = draw(TREES)
    right = copy.deepcopy(left)
    for _ in range(draw(st.integers(0, 3))):
        right = _edit(draw, right)
    return left, right


def _edit(draw: st.DrawFn, tree: object) -> object:
    if isinstance(tree, dict) and tree and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(tree)))
        edited = dict(tree)
        if draw(st.booleans()):
            edited[key] = _edit(draw, tree[key])
        else:
            edited[draw(KEYS)] = edited.pop(key)
        return edited
    if isinstance(tree, list) and tree and draw(st.booleans()):
        index = draw(st.integers(0, len(tree) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                return [*tree[:index], _edit(draw, tree[index]), *tree[index + 1 :]]
            case 1:
                return [*tree[:index], *tree[index + 1 :]]
            case 2:
                return [*tree[:index], draw(SCALARS), *tree[index:]]
            case _:
                return draw(st.permutations(tree))
    return draw(TREES)


def _as_set(places: list[tuple[str, str, object, object]]) -> list[str]:
    return sorted(repr(place) for place in places)


def _ours(left: object, right: object, plain: bool = False) -> list[str]:
    found = tree_differences(left, right, realign=False, plain=plain)
    return _as_set([(item.path, item.kind, item.left, item.right) for item in found])


def _deepdiffs(left: object, right: object) -> list[str]:
    return _as_set([(render(keys), kind, old, new) for keys, kind, old, new in deepdiff(left, right)])


@pytest.mark.parametrize(
    ("left", "right", "found"),
    [
        ('{"x": 1, "y": [1, 2]}', '{"y": [1, 3], "x": 1}', [("$.p.y[1]", "value", 2, 3)]),
        ("[1]", "{}", [("$.p", "value", "[1]", "{}")]),
        ("{a", "{b", [("$.p", "value", "{a", "{b")]),
        ('{"a": 1}', '{"a":1}', [("$.p", "value", '{"a": 1}', '{"a":1}')]),
    ],
)
def test_texts_that_are_json_are_compared_as_json(left: str, right: str, found: list[tuple]) -> None:
    differences = tree_differences({"p": left}, {"p": right}, plain=True)
    assert [(one.path, one.kind, one.left, one.right) for one in differences] == found


@PROPERTY
@given(mutated())
def test_the_walk_says_what_deepdiff_says_of_the_whole_documents(pair: tuple[object, object]) -> None:
    left, right = pair
    assert _ours(left, right) == _deepdiffs(left, right)


@PROPERTY
@given(TREES, TREES)
def test_so_it_does_of_documents_that_have_nothing_in_common(left: object, right: object) -> None:
    assert _ours(left, right) == _deepdiffs(left, right)


@PROPERTY
@given(mutated())
def test_so_it_does_of_bodies_read_by_orjson_with_pruning_on(pair: tuple[object, object]) -> None:
    bodies = [json.dumps(_jsonable(side)).encode() for side in pair]
    left, right = (lift(body, (("Content-Type", "application/json"),)) for body in bodies)
    plain = left.canonical is not None and right.canonical is not None
    assert _ours(left.tree, right.tree, plain) == _deepdiffs(left.tree, right.tree)
    if plain and left.canonical == right.canonical:
        assert _deepdiffs(left.tree, right.tree) == []


def _jsonable(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: _jsonable(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_jsonable(item) for item in tree]
    return str(tree) if isinstance(tree, Decimal) else tree


@st.composite
def plain_lists(draw: st.DrawFn) -> tuple[object, object]:
    """Lists of texts of one length, shifted, edited, shuffled: where difflib's alignment shows."""
    left = draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=8, unique=draw(st.booleans())))
    shift = draw(st.integers(-2, 2))
    right = left[shift:] + left[:shift]
    right[draw(st.integers(0, len(right) - 1))] = draw(st.sampled_from("abcxyz"))
    return left, right


@PROPERTY
@given(plain_lists())
def test_so_it_does_of_lists_of_plain_values_which_it_aligns(pair: tuple[object, object]) -> None:
    left, right = pair
    assert _ours(left, right) == _deepdiffs(left, right)


@PROPERTY
@given(mutated())
def test_realigning_lists_never_invents_nor_hides_a_change(pair: tuple[object, object]) -> None:
    left, right = pair
    assert bool(tree_differences(left, right)) == bool(tree_differences(left, right, realign=False))


HIDDEN_BY_DEFAULTS = [
    pytest.param([1, 2], [1.0, 2], [("$[0]", "type")], id="difflib takes 1 for 1.0"),
    pytest.param([True], [1], [("$[0]", "type")], id="difflib takes true for 1"),
    pytest.param({"__typename": "A"}, {"__typename": "B"}, [("$.__typename", "value")], id="private keys"),
    pytest.param(
        {"a": 1, "b": 2}, {"a": 1, "c": 2, "d": 3, "e": 4},
        [("$.b", "missing"), ("$.c", "extra"), ("$.d", "extra"), ("$.e", "extra")], id="dissimilar objects",
    ),
    pytest.param({"a": float("nan")}, {"a": float("nan")}, [], id="NaN is NaN"),
    pytest.param({"a": None}, {}, [("$.a", "missing")], id="null is not missing"),
    pytest.param([], {}, [("$", "type")], id="empty list and empty object"),
    pytest.param({"a": 0.1}, {"a": Decimal("0.10000000000000000001")}, [("$.a", "value")], id="precision"),
    pytest.param({"a": 2**70}, {"a": 2**70 + 1}, [("$.a", "value")], id="beyond 64 bits"),
    pytest.param({"a": (1, 2)}, {"a": 2}, [("$.a", "type")], id="a key twice"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "expected"), HIDDEN_BY_DEFAULTS)
def test_nothing_is_hidden(left: object, right: object, expected: list[tuple[str, str]]) -> None:
    assert [(item.path, item.kind) for item in tree_differences(left, right)] == expected


ITEMS = [{"id": n, "price": n * 10} for n in range(6)]
REALIGNED = [
    pytest.param(ITEMS, ITEMS[::-1], [("$", "order")], id="objects in another order"),
    pytest.param(ITEMS, [{"id": 9, "price": 1}, *ITEMS], [("$[0]", "extra")], id="one put in front"),
    pytest.param(ITEMS, ITEMS[1:], [("$[0]", "missing")], id="first one dropped"),
    pytest.param(
        ITEMS, [{"id": 3, "price": 31} if item["id"] == 3 else item for item in ITEMS[::-1]],
        [("$", "order"), ("$[3].price", "value")], id="shuffled, and one price is wrong",
    ),
    pytest.param(ITEMS, [{**item, "price": 1} for item in ITEMS[1:]],
        [(f"$[{n}].{key}", "value") for n in range(5) for key in ("id", "price")] + [("$[5]", "missing")],
        id="all changed: by index, as DeepDiff"),
    pytest.param(["a", "b", "c"], ["c", "a", "b"], [("$", "order")], id="plain items in another order"),
    pytest.param(["a", "b"], ["x", "a", "b"], [("$[0]", "extra")], id="plain items, one in front"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "expected"), REALIGNED)
def test_lists_whose_items_moved_are_read_by_item(
    left: list[object], right: list[object], expected: list[tuple[str, str]]
) -> None:
    assert [(item.path, item.kind) for item in tree_differences(left, right)] == expected


def test_an_unordered_list_has_no_order_but_still_has_values() -> None:
    right = [{"id": 3, "price": 31} if item["id"] == 3 else item for item in ITEMS[::-1]]
    found = tree_differences(ITEMS, right, lists=lambda path: path == "$")
    assert [(item.path, item.left, item.right) for item in found] == [("$[3].price", 30, 31)]


def test_an_alignment_matches_equal_items_then_names_then_the_rest() -> None:
    alignment = Alignment([{"id": 1}, {"id": 2, "x": 1}, "a"], ["b", {"id": 2, "x": 2}, {"id": 1}, "c"])
    assert alignment.changed == [(1, 1), (2, 0)]
    assert (alignment.gone, alignment.come) == ([], [3])
    assert alignment.moved


PATHOLOGICAL = [
    pytest.param(["a"] * 15_000 + ["b"], ["a"] * 15_000 + ["c"], id="equal items by the thousand"),
    pytest.param([*range(30_000)], [*range(1, 30_001)], id="very long"),
    pytest.param([{"n": n} for n in range(20_000)], [{"n": -n - 1} for n in range(20_000)], id="all differ"),
]


@pytest.mark.parametrize(("left", "right"), PATHOLOGICAL)
def test_a_pathological_pair_is_reported_and_does_not_stall(left: list[object], right: list[object]) -> None:
    before = time.process_time()
    found = tree_differences({"a": left}, {"a": right})
    assert [item.path for item in found if item.kind == "unexplained"] != []
    assert time.process_time() - before < 5


def test_the_costliest_list_that_is_still_aligned_takes_a_bounded_time() -> None:
    side = int(compare.MAX_ALIGNMENT**0.5) // 2
    left = ["a", "b"] * side
    before = time.process_time()
    assert tree_differences([*left, "c"], ["d", *left]) != []
    assert time.process_time() - before < 20


def test_deep_nesting_is_unexplained_not_an_error() -> None:
    left: object = 1
    right: object = 2
    for _ in range(5000):
        left, right = [left], [right]
    assert [item.kind for item in tree_differences(left, right)] == ["unexplained"]


def test_bodies_of_different_forms_differ_as_a_whole() -> None:
    found = body_differences(Lifted("json", {"a": 1}), Lifted("text", ["<html>"], None, ("is not JSON",)))
    assert [(item.path, item.kind, item.left, item.right) for item in found] == [
        ("$", "type", "json", "text (is not JSON) <html>")
    ]


SHOWN = [
    ({"a": [1, "x\n"]}, '{"a":[1,"x\\n"]}'),
    (None, "null"),
    (2**70, str(2**70)),
    (1.0, "1.0"),
    (Decimal("0.10"), "0.10"),
    ((1, "a"), 'repeated: 1, "a"'),
    ("x" * 500, '"' + "x" * 158 + "…"),
    ("\ud800", "'\\ud800'"),
]


@pytest.mark.parametrize(("value", "text"), SHOWN)
def test_values_are_shown_on_one_line(value: object, text: str) -> None:
    assert show(value) == text


def test_pruning_needs_no_copy_of_what_is_equal() -> None:
    tree = {"a": [{"b": n} for n in range(50)], "c": "d"}
    body = orjson.dumps(tree)
    left, right = lift(body, ()), lift(body + b" ", ())
    assert left.canonical == right.canonical
    assert body_differences(left, right) == []
