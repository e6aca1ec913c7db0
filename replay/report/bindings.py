"""The bindings of a capture, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import orjson
from rich.text import Text

from replay.findings import BindingRow
from replay.report.screen import render, table

_SHOWN = 24
_NONE = "no bindings: no request carries what an earlier answer of its session made"


def to_text(rules: Sequence[BindingRow], width: int, color: bool) -> str:
    """A table of the rules, each with an example."""
    if not rules:
        return render([Text(_NONE)], width, color)
    rows = [
        (
            rule.maker,
            rule.user,
            f"{rule.count:,}" if rule.count else "yours",
            f"{rule.sessions:,}",
            _example(rule),
        )
        for rule in rules
    ]
    return render([table(("answer", "request", ">times", ">sessions", "for example"), rows)], width, color)


def to_json(rules: Sequence[BindingRow]) -> str:
    """A list of the rules."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps([asdict(rule) for rule in rules], option=options).decode()


def _example(rule: BindingRow) -> str:
    if not rule.examples:
        return ""
    value = rule.examples[0][0]
    return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
