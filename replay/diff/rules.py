"""Rules: what a person says of differences that are meant, or mean nothing.

A rule has a path of `replay.diff.paths`, a glob over endpoints, and one action. Most actions excuse single
differences after they were found; `unordered` and `key` change how a list is read. Each rule counts what it took away,
so that one that never matched can be reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from warnings import catch_warnings, simplefilter

from replay.diff.paths import compile_pattern
from replay.errors import ConfigError
from replay.findings import Difference

Excuse = Callable[[Difference], bool]

ListReading = bool | str
"""Whether the order of a list means nothing; or the field by which its items are paired, wherever they stand."""

_OF_LISTS = ("unordered", "key")

_NUMBERS = (int, float, Decimal)


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule. `text` is the rule as one line, for messages and reports."""

    text: str
    action: str
    endpoint: str
    path: re.Pattern[str]
    excuse: Excuse
    raw: Mapping[str, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        # What excuses a difference is a closure: another process compiles its own.
        return compile_rule, (dict(self.raw),)


def _ignore(given: Any) -> Excuse:
    return lambda difference: True


def _tolerance(given: Any) -> Excuse:
    limit = _number(given)
    return lambda difference: (pair := _numbers(difference)) is not None and abs(pair[0] - pair[1]) <= limit


def _relative(given: Any) -> Excuse:
    limit = _number(given)
    return lambda difference: (
        (pair := _numbers(difference)) is not None
        and abs(pair[0] - pair[1]) <= limit * max(abs(pair[0]), abs(pair[1]))
    )


def _mask(given: Any) -> Excuse:
    if not isinstance(given, str):
        raise ValueError('needs a regular expression, e.g. mask = "v[0-9]+"')
    try:
        with catch_warnings():
            simplefilter("ignore")  # of what a later Python may read differently
            pattern = re.compile(given)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return lambda difference: (
        isinstance(difference.left, str)
        and isinstance(difference.right, str)
        and pattern.sub("*", difference.left) == pattern.sub("*", difference.right)
    )


def _type_only(given: Any) -> Excuse:
    return lambda difference: difference.kind == "value"


def _null_is_missing(given: Any) -> Excuse:
    return lambda difference: (
        difference.kind in ("missing", "extra") and difference.left is None and difference.right is None
    )


def _ignore_case(given: Any) -> Excuse:
    return lambda difference: (
        isinstance(difference.left, str)
        and isinstance(difference.right, str)
        and difference.left.casefold() == difference.right.casefold()
    )


def _unordered(given: Any) -> Excuse:
    return lambda difference: difference.kind == "order"


def _key(given: Any) -> Excuse:
    if not isinstance(given, str) or not given:
        raise ValueError('needs the name of a field, e.g. key = "id"')
    return lambda difference: difference.kind == "order"


def _time(given: Any) -> Excuse:
    limit = _number(given)
    return lambda difference: (
        (old := instant(difference.left)) is not None
        and (new := instant(difference.right)) is not None
        and abs(old - new) <= limit
    )


def _query_order(given: Any) -> Excuse:
    return lambda difference: (
        isinstance(difference.left, str)
        and isinstance(difference.right, str)
        and _sorted_query(difference.left) == _sorted_query(difference.right)
    )


ACTIONS: Mapping[str, Callable[[Any], Excuse]] = {
    "ignore": _ignore,
    "tolerance": _tolerance,
    "relative": _relative,
    "unordered": _unordered,
    "key": _key,
    "time": _time,
    "mask": _mask,
    "type_only": _type_only,
    "null_is_missing": _null_is_missing,
    "ignore_case": _ignore_case,
    "query_order": _query_order,
}
"""Action → maker of the excuse from the action's argument; raises `ValueError` where the argument is off."""


def compile_rule(raw: Mapping[str, Any], where: str = "diff.rule") -> Rule:
    """A rule from its table in replay.toml: `path`, optional `endpoint`, one action.

    `ConfigError` names the rule and the fix.
    """
    actions = [key for key in raw if key in ACTIONS]
    odd = sorted(set(raw) - set(ACTIONS) - {"path", "endpoint"})
    if odd:
        raise ConfigError(f"{where}: {odd[0]!r} is none of path, endpoint, {', '.join(ACTIONS)}")
    if not isinstance(raw.get("path"), str):
        raise ConfigError(f'{where}: needs a path, e.g. path = "$.items[*].price"')
    if len(actions) != 1:
        raise ConfigError(f"{where} ({raw['path']}): needs exactly one action of {', '.join(ACTIONS)}")
    action, endpoint = actions[0], str(raw.get("endpoint", "*"))
    try:
        excuse = ACTIONS[action](raw[action])
        path = compile_pattern(raw["path"])
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{where} ({raw['path']}): {action} {error}") from None
    argument = "" if raw[action] is True else f" {raw[action]}"
    scope = "" if endpoint == "*" else f" on {endpoint}"
    return Rule(f"{action}{argument} {raw['path']}{scope}", action, endpoint, path, excuse, dict(raw))


def compile_rules(raws: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """All rules of a configuration, each message numbered as the user would count them."""
    return tuple(compile_rule(raw, f"diff.rule {number}") for number, raw in enumerate(raws, 1))


class RuleBook:
    """The rules at work: finds those of an endpoint, applies them, counts what each took away."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.matched = [0] * len(self.rules)
        self._of: dict[str, tuple[tuple[int, Rule], ...]] = {}

    def of(self, endpoint: str) -> tuple[tuple[int, Rule], ...]:
        if endpoint not in self._of:
            self._of[endpoint] = tuple(
                (number, rule)
                for number, rule in enumerate(self.rules)
                if fnmatchcase(endpoint, _glob(rule.endpoint))
            )
        return self._of[endpoint]

    def keep(self, endpoint: str, differences: Sequence[Difference]) -> list[Difference]:
        """The differences that no rule excuses; the first rule that does gets the count."""
        rules = self.of(endpoint)
        return [difference for difference in differences if not self._excused(rules, difference)]

    def lists(self, endpoint: str) -> Callable[[str], ListReading] | None:
        """How the list at a path is read (see `ListReading`); `None` where no rule says anything of lists."""
        rules = [(number, rule) for number, rule in self.of(endpoint) if rule.action in _OF_LISTS]
        if not rules:
            return None

        def says(path: str) -> ListReading:
            for number, rule in rules:
                if rule.path.fullmatch(path):
                    self.matched[number] += 1
                    return str(rule.raw["key"]) if rule.action == "key" else True
            return False

        return says

    def _excused(self, rules: Sequence[tuple[int, Rule]], difference: Difference) -> bool:
        for number, rule in rules:
            if rule.path.match(difference.path) and rule.excuse(difference):
                self.matched[number] += 1
                return True
        return False


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> str:
    """Endpoints are full of braces and may hold brackets: only `*` and `?` are wild."""
    return pattern.replace("[", "[[]")


def _number(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 0:
        raise ValueError("needs a number of 0 or more")
    return float(given)


def _numbers(difference: Difference) -> tuple[float, float] | None:
    """Both sides as numbers: also texts that are numbers, as headers and some APIs write them."""
    if difference.kind not in ("value", "type"):
        return None
    sides = []
    for side in (difference.left, difference.right):
        if isinstance(side, bool):
            return None
        if isinstance(side, _NUMBERS):
            sides.append(float(side))
        elif isinstance(side, str):
            try:
                sides.append(float(side))
            except ValueError:
                return None
        else:
            return None
    return sides[0], sides[1]


_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e8, 1.0))
"""Numbers from the first of each pair on are instants since 1970 in units of its second: ns, µs, ms, s."""


def instant(value: Any) -> float | None:
    """Seconds since 1970 of what is written as an instant: ISO 8601, an HTTP date, or epoch s, ms, µs or ns."""
    if isinstance(value, bool):
        return None
    if isinstance(value, _NUMBERS) or (isinstance(value, str) and value.isdecimal()):
        number = float(value)
        return next((number / unit for least, unit in _EPOCHS if number >= least), None)
    if not isinstance(value, str) or not 8 <= len(value) <= 40:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        try:
            found = parsedate_to_datetime(value)
        except ValueError:
            return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _sorted_query(url: str) -> tuple[str, list[str], str]:
    """A URL with its query's parameters in a fixed order, each as it was written."""
    head, _, fragment = url.partition("#")
    path, _, query = head.partition("?")
    return path, sorted(query.split("&")), fragment
