"""Rules of the operator's own, from `[[redact]]` in replay.toml: one place, one action, the first that fits wins.

[[redact]]
header = "X-Customer"          # or query = "...", json = "$.user.name", regex = "...", detector = "ip"
action = "pseudonym"           # or mask, drop, keep
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from replay.capture.fields import compile_path, leaves
from replay.capture.parts import Part, Secrets, within_escapes
from replay.capture.pseudonyms import masked
from replay.errors import ConfigError

KINDS = ("header", "query", "json", "regex", "detector")
ACTIONS = ("drop", "mask", "pseudonym", "keep")


@dataclass(frozen=True, slots=True)
class Rule:
    """Where (`kind` and `pattern`), and what to do there."""

    kind: str
    pattern: str
    action: str


def compile_rules(tables: Iterable[Mapping[str, Any]], detectors: Iterable[str]) -> tuple[Rule, ...]:
    """The `[[redact]]` tables as rules; `ConfigError` names what is wrong with which."""
    known = tuple(detectors)
    return tuple(_rule(number, table, known) for number, table in enumerate(tables, 1))


def _rule(number: int, table: Mapping[str, Any], detectors: tuple[str, ...]) -> Rule:
    def wrong(what: str) -> ConfigError:
        return ConfigError(f"[[redact]] number {number}: {what}")

    given = [kind for kind in KINDS if kind in table]
    unknown = sorted(set(table) - {*KINDS, "action"})
    if unknown:
        raise wrong(f"unknown key {unknown[0]!r}; known are {', '.join((*KINDS, 'action'))}")
    if len(given) != 1:
        raise wrong(f"name one place: {', '.join(KINDS)}")
    kind, pattern, action = given[0], table[given[0]], table.get("action", "pseudonym")
    if not isinstance(pattern, str) or not pattern:
        raise wrong(f"{kind} must be a text that is not empty")
    if action not in ACTIONS:
        raise wrong(f"action = {action!r}: choose {', '.join(ACTIONS)}")
    if kind == "detector" and pattern not in detectors:
        raise wrong(f"no detector is called {pattern!r}; there are {', '.join(detectors)}")
    if kind == "detector" and action == "drop":
        raise wrong("a detector's finds can be kept, masked or replaced, not dropped")
    if kind == "json" and not pattern.startswith("$"):
        raise wrong(f"json = {pattern!r} must begin at the document: $.user.name")
    try:
        re.compile(pattern if kind == "regex" else "")
    except re.error as error:
        raise wrong(f"regex = {pattern!r} is no regular expression: {error}") from None
    return Rule(kind, pattern, action)


class Applied:
    """A rule ready to work on messages."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._path = compile_path(rule.pattern) if rule.kind == "json" else None
        self._regex = re.compile(rule.pattern.encode()) if rule.kind == "regex" else None
        self._name = rule.pattern.lower()

    def apply(self, part: Part, secrets: Secrets) -> int:
        """Do what the rule says; returns how often it did. A value that an earlier rule settled stays."""
        before = len(secrets.found)
        secrets.detector = f"rule {self.rule.kind} {self.rule.pattern}"
        if self.rule.kind == "header":
            self._headers(part, secrets)
        elif self.rule.kind == "query":
            self._parameters(part, secrets)
        elif self._path is not None:
            self._json(part, secrets)
        elif self._regex is not None:
            self._matches(part, secrets)
        return len(secrets.found) - before

    def _new(self, value: bytes, secrets: Secrets) -> bytes:
        if not value or value in secrets.kept:
            return value
        action = self.rule.action
        if action == "keep":
            new = value
        elif action == "pseudonym":
            new = secrets.raw(value)
        else:
            secrets.found.append((secrets.detector, secrets.place))
            new = b"" if action == "drop" else masked(value.decode("latin-1")).encode("latin-1")
        # What a rule has settled no detector touches again.
        if new:
            secrets.kept.add(new)
        return new

    def _headers(self, part: Part, secrets: Secrets) -> None:
        kept = []
        for name, value in part.headers:
            if not fnmatchcase(name.lower(), self._name):
                kept.append((name, value))
                continue
            secrets.place = f"header {name.lower()}"
            new = self._new(value.strip().encode("latin-1", "replace"), secrets).decode("latin-1")
            if new or self.rule.action != "drop":
                kept.append((name, new))
        part.headers[:] = kept

    def _parameters(self, part: Part, secrets: Secrets) -> None:
        path, question, query = part.target.partition("?")
        if question:
            new = self._pairs(query, "query", secrets)
            part.target = path + ("?" + new if new or not query else "")
        if part.is_form() and part.body:
            part.body = self._pairs(part.body.decode("latin-1"), "body", secrets).encode("latin-1")

    def _pairs(self, text: str, where: str, secrets: Secrets) -> str:
        pairs = []
        for pair in text.split("&"):
            name, equals, value = pair.partition("=")
            if not equals or not fnmatchcase(name.lower(), self._name):
                pairs.append(pair)
                continue
            secrets.place = f"{where} {name}"
            if self.rule.action != "drop":
                value = within_escapes(value, lambda plain: self._new(plain, secrets), plus=True)
                pairs.append(f"{name}={value}")
            else:
                self._new(value.encode("latin-1"), secrets)
        return "&".join(pairs)

    def _json(self, part: Part, secrets: Secrets) -> None:
        if not part.body or not part.is_json() or self._path is None:
            return
        new, end = bytearray(), 0
        for leaf in leaves(part.body):
            if not self._path.fullmatch(leaf.path):
                continue
            secrets.place = f"body {leaf.path}"
            value = part.body[leaf.start : leaf.end]
            drawn = self._leaf(value, leaf.quoted, secrets)
            start = leaf.start - (leaf.quoted and drawn == b"null")
            new += part.body[end:start] + drawn
            end = leaf.end + (leaf.quoted and drawn == b"null")
        if end:
            part.body = bytes(new + part.body[end:])

    def _leaf(self, value: bytes, quoted: bool, secrets: Secrets) -> bytes:
        if self.rule.action == "drop":
            self._new(value, secrets)
            return b"null"
        if not quoted and not value[:1].isdigit() and value[:1] != b"-":
            return value if self.rule.action == "keep" else b"null"
        if not quoted and self.rule.action == "mask":
            return b"0" if self._new(value, secrets) != value else value
        if b"\\" in value and self.rule.action == "pseudonym":
            # Escapes are masked: a pseudonym of them would be no JSON.
            return self._new(re.sub(rb"\\(?:u[0-9A-Fa-f]{4}|.)", b"_", value), secrets)
        if b"\\" in value and self.rule.action == "mask":
            return self._new(re.sub(rb"\\(?:u[0-9A-Fa-f]{4}|.)", b"*", value), secrets)
        return self._new(value, secrets)

    def _matches(self, part: Part, secrets: Secrets) -> None:
        secrets.place = "target"
        part.target = self._sub(part.target.encode("latin-1", "replace"), secrets).decode("latin-1")
        for index, (name, value) in enumerate(part.headers):
            secrets.place = f"header {name.lower()}"
            new = self._sub(value.encode("latin-1", "replace"), secrets).decode("latin-1")
            part.headers[index] = (name, new)
        secrets.place = "body"
        if part.body:
            part.body = self._sub(part.body, secrets)

    def _sub(self, text: bytes, secrets: Secrets) -> bytes:
        assert self._regex is not None

        def each(found: re.Match[bytes]) -> bytes:
            group = 1 if found.re.groups and found[1] is not None else 0
            start, end = (place - found.start() for place in found.span(group))
            return found[0][:start] + self._new(found[group], secrets) + found[0][end:]

        return self._regex.sub(each, text)
