"""Rules that the measured noise suggests, for a person to review: TOML to paste into replay.toml.

Suggested is the mildest rule that would have excused what was seen: an order, a tolerance in time or in
proportion, and only else to ignore the place. Failures and whole bodies that differ are never suggested away:
they are said in a comment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from replay.diff.paths import compile_pattern
from replay.diff.rules import instant
from replay.findings import NOISE, Example, Finding, Report

_HEAD = """\
# What differs from run to run of the old build, as rules for replay.toml. Read each before you keep it: a rule
# hides real regressions at its place as well.
"""
_JITTER = 1e-3
"""Numbers that differ in proportion by less than this jitter."""

_MARGIN = 10.0
"""Tolerances are this many times the largest difference among the few examples, which seldom hold the extreme."""


class Suggestion(NamedTuple):
    """One rule, `action` as it stands in TOML, and the finding that it comes from."""

    endpoint: str
    path: str
    action: str
    finding: Finding


def suggest(report: Report) -> str:
    """TOML: a `[[diff.rule]]` for each place of noise; comments for what no rule should hide."""
    noise = report.judged(NOISE)
    rules = _without_covered([_suggestion(finding) for finding in noise if not _is_whole(finding)])
    parts = [_HEAD, *map(_table, rules)]
    parts += [
        f"# {_comment(finding.endpoint)}: {finding.path} {_seen(finding)}: mend staging rather than ignore it.\n"
        for finding in noise
        if _is_whole(finding)
    ]
    if len(parts) == 1:
        parts.append("# Nothing differed from run to run.\n")
    return "\n".join(parts)


def _is_whole(finding: Finding) -> bool:
    return finding.path in ("$", "status", "error", "headers")


def _suggestion(finding: Finding) -> Suggestion:
    return Suggestion(finding.endpoint, finding.path, _action(finding.kind, finding.examples), finding)


def _action(kind: str, examples: Sequence[Example]) -> str:
    if kind == "order":
        return "unordered = true"
    if kind == "value" and examples:
        pairs = [(_value(example.left), _value(example.right)) for example in examples]
        if (apart := _apart(pairs)) is not None:
            return f"time = {_neat(apart)}  # seconds"
        if (jitter := _proportion(pairs)) is not None:
            return f"relative = {_neat(jitter)}"
    return "ignore = true"


def _value(shown: str) -> Any:
    """The value that an example shows; headers are shown without quotes."""
    try:
        return json.loads(shown)
    except ValueError:
        return shown


def _apart(pairs: Iterable[tuple[Any, Any]]) -> float | None:
    """The most seconds between instants, if all are instants."""
    most = 0.0
    for left, right in pairs:
        old, new = instant(left), instant(right)
        if old is None or new is None:
            return None
        most = max(most, abs(old - new))
    return most


def _proportion(pairs: Iterable[tuple[Any, Any]]) -> float | None:
    """The largest difference of numbers in proportion, if all are numbers that jitter."""
    most = 0.0
    for left, right in pairs:
        if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in (left, right)):
            return None
        most = max(most, abs(left - right) / max(abs(left), abs(right), 1e-300))
    return most if most <= _JITTER else None


def _neat(number: float) -> str:
    """The number with its margin, rounded up to one digit: nobody believes in 13.07 s."""
    wide = max(number * _MARGIN, 1e-12)
    digit = 10.0 ** math.floor(math.log10(wide))
    return f"{math.ceil(wide / digit) * digit:.12g}"


def _without_covered(suggestions: Sequence[Suggestion]) -> list[Suggestion]:
    """One rule a place, the broader where two would do: what is ignored covers all that lies below it."""
    kept: list[Suggestion] = []
    for one in sorted(suggestions, key=lambda s: (s.endpoint, s.path, not s.action.startswith("ignore"))):
        covers = (
            other for other in kept if other.endpoint == one.endpoint and other.action.startswith("ignore")
        )
        # The path of one of the places: a pattern matches places, not patterns.
        place = one.path.replace("[*]", "[0]").replace(".*", ".x")
        if not any(compile_pattern(other.path).match(place) for other in covers):
            kept.append(one)
    return kept


def _table(rule: Suggestion) -> str:
    finding = rule.finding
    example = "".join(f", {_comment(one.left)} → {_comment(one.right)}" for one in finding.examples[:1])
    return (
        f"# {finding.kind} {_seen(finding)}{example}\n"
        "[[diff.rule]]\n"
        f"endpoint = {_quoted(rule.endpoint)}\n"
        f"path = {_quoted(rule.path)}\n"
        f"{rule.action}\n"
    )


def _seen(finding: Finding) -> str:
    return f"differed in {finding.control_differing:,} of {finding.control_pairs:,} old against old"


def _comment(text: str) -> str:
    """Text of a build for a comment: on one line, control characters gone, not long."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain if len(plain) <= 60 else f"{plain[:59]}…"


def _quoted(text: str) -> str:
    """A basic string of TOML, whose escapes are JSON's; lone surrogates, which no file can hold, become `?`."""
    whole = text.encode("utf-8", "replace").decode()
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
