"""Exactly DeepDiff, only cheaper: equal bytes, then equal trees, then only what differs.

Two trees are walked in step. DeepDiff pairs dictionaries by key, and lists with a container among their items
by index, each pair on its own: so walking does not change its answer, and equal subtrees have none. Lists of
plain values it aligns as a whole with difflib: those go to DeepDiff itself where they differ, unless the
alignment can only be index by index (`_aligned`). A property test holds `tree_differences` to DeepDiff's
answer for the whole documents under the same `settings()`.

The settings are those that hide nothing. One of DeepDiff's habits needs an operator: difflib asks Python,
to which 1, 1.0 and true are equal, and so `[1]` → `[1.0]` would be no difference at all; lists that mix such
types are paired by index instead.

On top of that answer comes one reading of our own, `Alignment`: where the items of a list mostly moved, it
is paired by item. A shuffled list is one difference of kind `order`, an item put in front is one `extra`, not
as many as the list has fields below it; and a price that changed in a shuffled list is still seen.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any

import orjson

from replay.diff.lift import Lifted, NotLiftedError, parse_json
from replay.diff.paths import Key, Trail, render, steps
from replay.diff.rules import ListReading
from replay.findings import Difference

MAX_DIFFERENCES = 2000
"""Differences listed for one pair; one `unexplained` stands for the rest."""

MAX_ALIGNMENT = 1_000_000
"""Pairs of equal items that difflib may look at for one list: about a second. Beyond: `unexplained`."""

MAX_ITEMS = 20_000
"""Items of a list of plain values that are aligned; beyond, the list is `unexplained`."""

_PLAIN_TYPES = frozenset((str, int, float, bool, Decimal, type(None)))
_NUMBERS = (int, float, bool, Decimal)

_dumps = orjson.dumps


class _TooManyError(Exception):
    pass


ReadList = Callable[[str], ListReading]
"""What a rule says of the list at this path."""


def body_differences(left: Lifted, right: Lifted, lists: ReadList | None = None) -> list[Difference]:
    """Where two bodies differ; the same form or not."""
    if left.form != right.form:
        return [Difference("$", "type", _outline(left), _outline(right))]
    plain = left.canonical is not None and right.canonical is not None
    if plain and _equal(left, right):
        return []
    return tree_differences(left.tree, right.tree, plain=plain, lists=lists)


def _equal(left: Lifted, right: Lifted) -> bool:
    """Whether two trees are equal, the order of keys aside; asks orjson, which takes 1 for neither 1.0 nor true."""
    if left.canonical == right.canonical:
        return True
    if len(left.canonical or b"") != len(right.canonical or b""):
        return False
    return _dumps(left.tree, option=orjson.OPT_SORT_KEYS) == _dumps(right.tree, option=orjson.OPT_SORT_KEYS)


def _outline(body: Lifted) -> str:
    """What a body is, in a few words, and why it is no more than that."""
    words = [body.form, *(f"({note})" for note in body.notes)]
    if body.form == "binary":
        words = [str(body.tree)]
    elif body.form == "text":
        words += ["\n".join(body.tree)[:120]]
    return " ".join(words)


def tree_differences(
    left: Any, right: Any, *, realign: bool = True, plain: bool = False, lists: ReadList | None = None
) -> list[Difference]:
    """Where two trees differ, in the order of a walk through them.

    `plain` promises that orjson can write both trees without loss, which lets it prune equal subtrees at
    the speed of C. With `realign` off this is DeepDiff's answer to the letter. Never raises on data, and
    never stalls: what would cost too much is one difference of kind `unexplained`.
    """
    walk = _Walk(realign, plain, lists)
    try:
        walk.pair(left, right, None)
    except _TooManyError:
        walk.found.append(Difference("$", "unexplained", None, f"more than {MAX_DIFFERENCES} differences"))
    except RecursionError:
        return [Difference("$", "unexplained", None, "nested too deeply")]
    return walk.found


class _Walk:
    __slots__ = ("found", "plain", "read_list", "realign")

    def __init__(self, realign: bool, plain: bool, read_list: ReadList | None) -> None:
        self.found: list[Difference] = []
        self.realign = realign
        self.plain = plain
        self.read_list = read_list

    def pair(self, left: Any, right: Any, trail: Trail) -> None:
        kind = type(left)
        if kind is not type(right):
            self.differ(trail, type_kind(left, right), left, right)
        elif kind is dict:
            self.dicts(left, right, trail)
        elif kind is list:
            self.lists(left, right, trail)
        elif kind is tuple:
            self.lists(list(left), list(right), trail)
        elif left != right and (left == left or right == right):  # NaN is NaN here
            self.values(left, right, trail)

    def values(self, left: Any, right: Any, trail: Trail) -> None:
        """Two plain values of one type that differ: texts that are JSON are compared as what they say."""
        if self.realign and type(left) is str and left[:1] in _OPENING and right[:1] == left[:1]:
            old, new = _json_in(left), _json_in(right)
            if old is not None and new is not None:
                before = len(self.found)
                # No promise is made for what is inside: see `plain`.
                self.plain, plain = False, self.plain
                self.pair(old, new, trail)
                self.plain = plain
                if len(self.found) > before:
                    return
        self.differ(trail, "value", left, right)

    def dicts(self, left: dict[str, Any], right: dict[str, Any], trail: Trail) -> None:
        common = 0
        for key, old in left.items():
            if key not in right:
                self.differ((trail, key), "missing", old, None)
                continue
            common += 1
            new = right[key]
            kind = type(old)
            # Most values are equal texts and numbers: settle those here, without a call.
            if kind is type(new) and kind in _PLAIN_TYPES:
                if old != new and (old == old or new == new):
                    self.values(old, new, (trail, key))
            elif not (self.plain and _dumps(old) == _dumps(new)):
                self.pair(old, new, (trail, key))
        if common != len(right):
            for key, new in right.items():
                if key not in left:
                    self.differ((trail, key), "extra", None, new)

    def lists(self, left: list[Any], right: list[Any], trail: Trail) -> None:
        how = self.read_list is not None and self.read_list(render(steps(trail)))
        if how:
            key = how if isinstance(how, str) else None
            self.by_item(Alignment(left, right, key), left, right, trail, moves=False)
        elif _all_plain(left) and _all_plain(right):
            self.plain_lists(left, right, trail)
        else:
            before = len(self.found)
            self.by_index(left, right, trail)
            if self.realign and len(self.found) > before + 1:
                self.realigned(left, right, trail, before)

    def by_index(self, left: list[Any], right: list[Any], trail: Trail) -> None:
        for index, (old, new) in enumerate(zip(left, right, strict=False)):
            # Python's == would take 1 for 1.0 and true; the bytes do not. Unequal bytes mean nothing yet:
            # keys may come in another order.
            if not (self.plain and _dumps(old) == _dumps(new)):
                self.pair(old, new, (trail, index))
        for index in range(len(right), len(left)):
            self.differ((trail, index), "missing", left[index], None)
        for index in range(len(left), len(right)):
            self.differ((trail, index), "extra", None, right[index])

    def plain_lists(self, left: list[Any], right: list[Any], trail: Trail) -> None:
        if left == right and list(map(type, left)) == list(map(type, right)):
            return
        if self.realign and len(left) == len(right) and Alignment(left, right).is_permutation:
            self.differ(trail, "order", left, right)
        elif mixes_numbers(left, right) or _aligned(left, right):
            self.by_index(left, right, trail)
        elif _alignment_cost(left, right) > MAX_ALIGNMENT:
            self.differ(trail, "unexplained", f"{len(left)} items", f"{len(right)} items")
        else:
            for keys, kind, old, new in deepdiff(left, right):
                self.found.append(Difference(render([*steps(trail), *keys]), kind, old, new))
                self.bound()

    def realigned(self, left: list[Any], right: list[Any], trail: Trail, before: int) -> None:
        """Read the list by item where that leaves at most half as many items to explain."""
        by_index = sum(identity(old) != identity(new) for old, new in zip(left, right, strict=False))
        alignment = Alignment(left, right)
        if 2 * alignment.unmatched <= by_index + abs(len(left) - len(right)):
            del self.found[before:]
            self.by_item(alignment, left, right, trail, moves=True)

    def by_item(
        self, alignment: Alignment, left: list[Any], right: list[Any], trail: Trail, moves: bool
    ) -> None:
        if moves and alignment.moved:
            self.differ(trail, "order", left, right)
        for i, j in alignment.changed:
            self.pair(left[i], right[j], (trail, i))
        for i in alignment.gone:
            self.differ((trail, i), "missing", left[i], None)
        for j in alignment.come:
            self.differ((trail, j), "extra", None, right[j])

    def differ(self, trail: Trail, kind: str, left: Any, right: Any) -> None:
        self.found.append(Difference(render(steps(trail)), kind, left, right))
        self.bound()

    def bound(self) -> None:
        if len(self.found) > MAX_DIFFERENCES:
            raise _TooManyError


def type_kind(left: Any, right: Any) -> str:
    """`type`, except that a number too exact for a double beside a double is another `value`."""
    pair = {type(left), type(right)}
    return "value" if pair == {float, Decimal} or pair == {int, Decimal} else "type"


_OPENING = ("{", "[")


def _json_in(text: str) -> Any:
    """The tree of a text that is JSON, as gateways and queues like to nest it; `None` where it is not."""
    try:
        return parse_json(text.encode())[0]
    except (NotLiftedError, UnicodeError):
        return None


class Alignment:
    """Which item of one list is which of the other: equal items first, in order; then those that share what
    names them; then the rest as it comes. With a `key`, items that have that field pair by it alone."""

    __slots__ = ("changed", "come", "gone", "is_permutation", "moved", "unmatched")

    def __init__(self, left: Sequence[Any], right: Sequence[Any], key: str | None = None) -> None:
        name = _name if key is None else partial(_keyed, key)
        matched, olds, news = _matches([identity(item) for item in left], [identity(item) for item in right])
        self.unmatched = max(len(olds), len(news))
        self.is_permutation = not olds and not news
        named, i_left, j_left = _matches([name(left[i]) for i in olds], [name(right[j]) for j in news])
        self.changed = [(olds[i], news[j]) for i, j in named]
        gone, come = [olds[i] for i in i_left], [news[j] for j in j_left]
        # Without a key, what is left over may be one item that changed its name as well; with one it is not.
        rest = list(zip(gone, come, strict=False)) if key is None else []
        self.changed = sorted([*self.changed, *rest])
        self.gone, self.come = gone[len(rest) :], come[len(rest) :]
        order = [j for _, j in sorted([*matched, *self.changed])]
        self.moved = any(a > b for a, b in pairwise(order))


def _matches(left: list[Any], right: list[Any]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pairs of indices of equal items, first come first matched, and the indices left over on both sides."""
    places: dict[Any, deque[int]] = {}
    for j, item in enumerate(right):
        if item is not None:
            places.setdefault(item, deque()).append(j)
    pairs, olds = [], []
    for i, item in enumerate(left):
        if item is not None and places.get(item):
            pairs.append((i, places[item].popleft()))
        else:
            olds.append(i)
    taken = {j for _, j in pairs}
    return pairs, olds, [j for j in range(len(right)) if j not in taken]


_NAMES = ("id", "uuid", "key", "sku", "code", "slug", "name")


def _name(item: Any) -> Any:
    """What names an item among its siblings, or `None`."""
    if type(item) is dict:
        for key in _NAMES:
            if type(item.get(key)) in (str, int):
                return key, item[key]
    return None


def _keyed(key: str, item: Any) -> Any:
    """The value of the key field, told apart by type; `None` where an item has none."""
    return identity(item[key]) if type(item) is dict and key in item else None


def identity(value: Any) -> Any:
    """A hashable that is equal for equal trees only: 1, 1.0 and true are told apart."""
    if type(value) is str:
        return value
    try:
        return (
            orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if _is_jsonable(value) else repr(value).encode()
        )
    except (TypeError, ValueError, RecursionError):  # numbers beyond 64 bits, decimals, lone surrogates
        return repr(value).encode("utf-8", "backslashreplace")


def _is_jsonable(value: Any) -> bool:
    return not isinstance(value, float) or value == value


def _all_plain(items: list[Any]) -> bool:
    return _PLAIN_TYPES.issuperset(map(type, items))


def mixes_numbers(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Whether Python would call values of different types equal somewhere in these lists."""
    return len({type(item) for item in (*left, *right) if isinstance(item, _NUMBERS)}) > 1


def _aligned(left: list[Any], right: list[Any]) -> bool:
    """Whether difflib can only pair index with index: equal length, no item twice, none at another index.

    Then each common item matches at its own index alone, what lies between are replacements of equal
    length, and both of DeepDiff's passes list the same.
    """
    if len(left) != len(right):
        return False
    old, new = set(left), set(right)
    if len(old) != len(left) or len(new) != len(right):
        return False
    return not any(a != b and (a in new or b in old) for a, b in zip(left, right, strict=True))


def _alignment_cost(left: list[Any], right: list[Any]) -> int:
    # difflib visits, for each item on the left, every equal one on the right; and again for what is left of
    # the lists on both sides of each match, which is why the length counts too.
    if max(len(left), len(right)) > MAX_ITEMS:
        return MAX_ALIGNMENT + 1
    times = Counter(right)
    return sum(count * times[item] for item, count in Counter(left).items())


# DeepDiff: imported at first need, as it costs a tenth of a second that equal runs should not pay.

_KINDS = {
    "values_changed": "value",
    "type_changes": "type",
    "dictionary_item_added": "extra",
    "dictionary_item_removed": "missing",
    "iterable_item_added": "extra",
    "iterable_item_removed": "missing",
    "iterable_item_moved": "order",
    "unprocessed": "unexplained",
}

Place = tuple[list[Key], str, Any, Any]


class _ByIndexWhereTypesMix:
    """A DeepDiff operator: plain lists whose numbers mix types are paired by index, so that 1 is not 1.0."""

    def match(self, level: Any) -> bool:
        left, right = level.t1, level.t2
        return (
            type(left) in (list, tuple)
            and type(left) is type(right)
            and _all_plain(list(left))
            and _all_plain(list(right))
            and mixes_numbers(left, right)
        )

    def give_up_diffing(self, level: Any, diff_instance: Any) -> bool:
        from deepdiff.model import SubscriptableIterableRelationship

        diff_instance._diff_by_forming_pairs_and_comparing_one_by_one(
            level, local_tree=None, child_relationship_class=SubscriptableIterableRelationship
        )
        return True


def settings() -> dict[str, Any]:
    """What DeepDiff is asked with, here and by the test that holds this module to it."""
    return {
        "ignore_order": False,
        "ignore_private_variables": False,  # or a change of GraphQL's __typename is none
        "ignore_nan_inequality": True,
        "threshold_to_diff_deeper": 0,  # or dissimilar objects fold into one change
        "custom_operators": [_ByIndexWhereTypesMix()],
        "verbose_level": 2,
        "view": "tree",
    }


def deepdiff(left: Any, right: Any) -> list[Place]:
    """DeepDiff's own answer as (keys, kind, left, right), in its order."""
    places: list[Place] = []
    for category, levels in _deepdiff()(left, right, **settings()).items():
        for level in levels:
            old, new = _present(level.t1), _present(level.t2)
            kind = _KINDS[category]
            if kind == "type":
                kind = type_kind(old, new)
            places.append((level.path(output_format="list"), kind, old, new))
    return places


def _present(value: Any) -> Any:
    return None if type(value).__name__ == "NotPresent" else value


_cached: deque[Callable[..., Any]] = deque(maxlen=1)


def _deepdiff() -> Callable[..., Any]:
    if not _cached:
        from deepdiff import DeepDiff

        _cached.append(DeepDiff)
    return _cached[0]


_SPACES = re.compile(r"[\x00-\x1f\x7f]+")


def show(value: Any, width: int = 160) -> str:
    """A value as short display text: JSON, on one line, cut with an ellipsis."""
    if isinstance(value, tuple):
        text = "repeated: " + ", ".join(show(item, width) for item in value[:8])
    elif isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        text = str(value)
    else:
        try:
            text = orjson.dumps(_outermost(value)).decode()
        except (TypeError, ValueError):
            text = repr(value)
    text = _SPACES.sub(" ", text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _outermost(value: Any) -> Any:
    # A cut before the serialisation, so that showing one example of a huge value stays cheap.
    if isinstance(value, str):
        return value[:400]
    if isinstance(value, list):
        return value[:50]
    return value
