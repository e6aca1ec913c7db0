"""One path language for everything that can differ.

    status                        the status code
    error                         the kind of failure, where no answer came
    headers.content-type          a header, its name in lower case
    $                             the whole body
    $.items[3].price              a place in a body that is a tree; `$[3]` the fourth line of a text
    $["odd key"].x                a key that is no plain word, as a JSON string
    $.items[*].price              any index; `$.by_id.*` any key; `$..price` at any depth

Erasing a path turns what varies from exchange to exchange (indices, keys that are identifiers) into `*`,
so that differences of many exchanges fall together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache

from replay.errors import ConfigError

Key = str | int
Trail = tuple["Trail", Key] | None
"""A path as it is walked: the way here and the last step, so that walking costs one small tuple a level."""

_WORD = re.compile(r"[A-Za-z_][\w\-]*\Z", re.ASCII)
_IDENTIFIER = re.compile(
    r"\d+|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|(?=[a-f]*\d)[0-9a-f]{12,}"
)
_STEP = re.compile(r'\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|\.([^.\[]+)')
_PATTERN_STEP = re.compile(r'\.\.|\.\*|\[\*\]|\[\d+\]|\["(?:[^"\\]|\\.)*"\]|\.?[^.\[\]]+')


def steps(trail: Trail) -> list[Key]:
    """The steps of a trail, outermost first."""
    found: list[Key] = []
    while trail is not None:
        trail, key = trail
        found.append(key)
    return found[::-1]


def render(keys: Iterable[Key]) -> str:
    """The path of a place in a body."""
    return "$" + "".join(map(_step, keys))


def _step(key: Key) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if _WORD.match(key):
        return f".{key}"
    quoted = json.dumps(key, ensure_ascii=False)
    return f"[{quoted.encode('utf-8', 'backslashreplace').decode()}]"  # half a surrogate pair stays an escape


@lru_cache(maxsize=1 << 15)
def erase(path: str) -> str:
    """The path with indices, and keys that look like identifiers, replaced by `*`."""
    return _STEP.sub(_erased, path) if path.startswith("$") else path


def _erased(step: re.Match[str]) -> str:
    index, quoted, word = step.groups()
    if index is not None:
        return "[*]"
    key = json.loads(quoted) if quoted is not None else word
    return ".*" if _IDENTIFIER.fullmatch(key) else step.group()


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression over unerased paths; it also covers everything below.

    `ConfigError` where the pattern is none of the path language.
    """
    if not re.match(r"(\$|headers\.|headers\Z|status\Z|error\Z)", pattern):
        raise ConfigError(
            f"path {pattern!r} starts with none of $, headers., status, error: write e.g. $.items[*].price"
        )
    if pattern.startswith("headers"):
        pattern = pattern.lower()
    place, rest = 0, []
    while place < len(pattern):
        step = _PATTERN_STEP.match(pattern, place)
        if step is None or step.group() == "." or (step.group() == ".." and step.end() == len(pattern)):
            raise ConfigError(
                f"path {pattern!r} is odd from {pattern[place:]!r} on: write e.g. $.items[*].price"
            )
        rest.append(_pattern_step(step.group()))
        place = step.end()
    return re.compile("".join(rest) + r"(?=[.\[]|\Z)", re.DOTALL)


def _pattern_step(step: str) -> str:
    if step == "..":
        return r"(?:.*)(?:\.|(?<=\$))"
    if step == ".*":
        return r'(?:\.[^.\[]+|\["(?:[^"\\]|\\.)*"\]|\[\d+\])'
    if step == "[*]":
        return r"\[\d+\]"
    return re.escape(step) if step[0] == "[" else re.escape(step).replace(r"\*", r"[^.\[]*")
