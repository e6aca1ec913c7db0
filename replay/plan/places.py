"""Where a value stands in a message, how telling it is, and whether two places speak of the same thing.

A place has a kind (`$` for JSON, `header`, `cookie`, `form`, `query`, `path`, `meta`, `link`), keys that lead to a
text, and where that text is a URL or a token, further steps inside it. Its erased form, with `[*]` for every index,
is what rules are made of.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

Key = str | int


class Place(NamedTuple):
    """`Place("$", ("orders", 3, "id"))` is `$.orders[3].id`; `within` leads on inside the text found there."""

    kind: str
    keys: tuple[Key, ...] = ()
    within: tuple[Key, ...] = ()

    @property
    def erased(self) -> str:
        """The place as rules name it: `$.orders[*].id`, `header location path[1]`, `cookie sid`."""
        return _erased(self)


@lru_cache(maxsize=1 << 14)
def _erased(place: Place) -> str:
    if place.kind == "$":
        text = "$" + "".join("[*]" if isinstance(key, int) else f".{key}" for key in place.keys)
    elif place.kind == "path":
        text = f"path[{place.keys[0]}]"
    elif place.kind in ("form", "meta", "link"):
        text = f"{place.kind} {place.keys[0]}"
    else:
        text = " ".join([place.kind, *map(str, place.keys)])
    return text + "".join(f"[{step}]" if isinstance(step, int) else f" {step}" for step in place.within)


# How telling a value is.

NOTHING, WEAK, STRONG = 0, 1, 2
LONGEST = 4096

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?|\w{3},? \d\d.*GMT|\d+(\.\d+)+")
_CODE = re.compile(r"""[\w.~:@!*+/=$|"-]+""")
_SMALL = re.compile(r"-?\d{1,8}|(?=.*\d)[A-Za-z0-9_-]{2,16}")
_RUNS = re.compile(r"[0-9]+|[A-Z]+[a-z]*|[a-z]+")


@lru_cache(maxsize=1 << 15)
def strength(value: str) -> int:
    """STRONG values are found again by no accident; WEAK ones (small numbers, short codes) may be; others are
    words, instants and texts, which say nothing about where they came from."""
    size = len(value)
    if not size or size > LONGEST or _INSTANT.fullmatch(value):
        return NOTHING
    if size >= 8 and _CODE.fullmatch(value) and _bits(value) >= 28 and _is_drawn(value):
        return STRONG
    return WEAK if _SMALL.fullmatch(value) else NOTHING


def _bits(value: str) -> float:
    """Shannon's entropy of the value's characters times its length: `aaaaaaaa` has none."""
    size = len(value)
    return -sum(n * math.log2(n / size) for n in Counter(value).values())


def _is_drawn(value: str) -> bool:
    """Whether a machine drew it: many digits, or digits and capitals where words and their numbers have none."""
    digits, solid = sum(map(str.isdigit, value)), sum(map(str.isalnum, value))
    if digits >= 6:
        return digits < solid or digits >= 9
    runs = len(_RUNS.findall(value))
    if digits:
        return solid <= (3 if solid < 16 else 4) * runs
    return solid >= 20 and solid <= 4 * runs


# Whether two places speak of the same thing.

_IDS = frozenset({"id", "pk", "uuid", "guid", "key", "number", "no", "ref", "code", "slug", "token"})
_GENERIC = frozenset(
    {
        *("page", "limit", "offset", "size", "count", "total", "perpage", "pagesize", "q", "query", "sort"),
        *("version", "v", "status", "type", "lang", "quantity", "qty", "price", "amount", "value", "index"),
    }
)


def agree(source: str, place: Place, endpoint: str, target: Place) -> bool:
    """Whether position or name say that what `source` answers at `place` is what `endpoint` asks for at `target`.

    `POST /orders $.id` agrees with `GET /orders/{id} path[1]` and with `GET /invoices query order_id`.
    """
    made, thing = _named(source, place)
    asked, owner = _named(endpoint, target)
    if made in _GENERIC or asked in _GENERIC or not made or not asked:
        return False
    if made in _IDS and asked in _IDS:
        return (
            thing == owner
            and bool(thing)
            and (made == asked or "id" in (made, asked) or "pk" in (made, asked))
        )
    if made in _IDS:
        return asked in {thing, thing + made, thing + "id"} and bool(thing)
    if asked in _IDS:
        return made in {owner, owner + asked, owner + "id"} and bool(owner)
    return made == asked


def _named(endpoint: str, place: Place) -> tuple[str, str]:
    """What a value is called, and what it is of: (`id`, `order`) for `POST /orders $.id`."""
    route = [part for part in endpoint.partition(" ")[2].split("/") if part]
    path = [index for step, index in zip(place.within, place.within[1:], strict=False) if step == "path"]
    if place.kind == "path":
        return "id", _before(route, int(place.keys[0]))
    if place.kind == "link":
        skeleton = [part for part in str(place.keys[0]).partition("?")[0].split("/") if part]
        return ("id", _before(skeleton, int(path[0]))) if path else (_plain(str(place.within[-1])), "")
    if path:
        named = place.within[-1]
        return "id", _single(_plain(named)) if isinstance(named, str) else _resource(route)
    if place.within[:1] == ("query",):
        return _plain(str(place.within[1])), ""
    names = [key for key in (*place.keys, *place.within) if isinstance(key, str)]
    if not names:
        return "", ""
    name = _plain(names[-1])
    parents = names[:-1] if place.kind == "$" else []
    return name, _single(_plain(parents[-1])) if parents and parents[-1] not in _WRAPPERS else _resource(
        route
    )


_WRAPPERS = frozenset({"data", "result", "results", "items", "attributes", "payload", "response", "body"})


def _plain(name: str) -> str:
    # `user[order_id]` is called by its last part.
    last = re.split(r"[\[\].]+", name.rstrip("]"))[-1]
    return last.lower().replace("-", "").replace("_", "")


def _resource(route: list[str]) -> str:
    names = [part for part in route if not part.startswith("{")]
    return _single(_plain(names[-1])) if names else ""


def _before(route: list[str], index: int) -> str:
    return _resource(route[:index])


def _single(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
