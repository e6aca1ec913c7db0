"""Endpoints from targets: `GET /orders/1042?x=1` is one of many calls of `GET /orders/{id}`.

Two things tell a parameter from a name. Its form: numbers, UUIDs, hashes, dates, tokens and addresses show
what they are, one by one. And its company: where a great many different words stand at one place of the
path, they are slugs, save the few that make up a good part of the traffic there (`/users/me`). The second
needs to have seen the traffic: `observe` first, then ask for `endpoint`. Routes given by the user win.

Placeholders: `{id}` numbers and prefixed numbers, `{uuid}`, `{hash}` hexadecimal, `{date}`, `{token}` other
opaque strings, `{email}`, `{slug}` by company, `{path}` what is deeper than anyone designs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

MOST_NAMES = 64
"""Different names at one place of the path before they count as slugs."""

FREQUENT = 0.05
"""The share of the traffic at its place that keeps a name a name among slugs."""

_MOST_NODES = 50_000
_DEEPEST = 16
_LONGEST_NAME = 80

_PLACEHOLDER = re.compile(r"\{[a-z]+\}")
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("{id}", re.compile(r"-?\d+")),
    (
        "{uuid}",
        re.compile(r"\{?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}?", re.IGNORECASE),
    ),
    ("{date}", re.compile(r"\d{4}-\d{2}(-\d{2}([T _]\d{2}[:.-]?\d{2}.*)?)?")),
    ("{email}", re.compile(r"[^@/\s]+@[^@/\s]+\.[^@/\s.]+")),
    ("{hash}", re.compile(r"(?=.*\d)(?:[0-9a-f]{12,}|[0-9A-F]{12,})")),
    ("{token}", re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")),  # ULID
    ("{token}", re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")),  # JWT
    ("{id}", re.compile(r"[A-Za-z]{1,16}[-_]?\d{3,}")),
)
_FILE = re.compile(r"(?P<stem>.+)(?P<extension>\.[A-Za-z][A-Za-z0-9]{0,5})")
_CHUNKS = re.compile(r"[-_.~:,+ ]")
_RUNS = re.compile(r"[0-9]+|[A-Z]+[a-z]*|[a-z]+")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def classify(segment: str) -> str | None:
    """The placeholder for a path segment whose form gives it away, else `None`."""
    text = unquote(segment)
    if _PLACEHOLDER.fullmatch(text):
        return text
    for placeholder, pattern in _FORMS:
        if pattern.fullmatch(text):
            return placeholder
    if len(text) > _LONGEST_NAME or _is_opaque(text):
        return "{token}"
    return None


def _is_opaque(text: str) -> bool:
    """Whether some part of the segment looks drawn at random rather than written.

    Words, also CamelCase ones and words with a number, change between digits, capitals and small letters
    every few characters; base64 and its like change at about every second one.
    """
    if text.endswith("=") and len(text) >= 12:
        return True
    return any(_is_random(chunk) for chunk in _CHUNKS.split(text) if len(chunk) >= 10)


def _is_random(chunk: str) -> bool:
    runs = _RUNS.findall(chunk)
    if not any(run[0].isdigit() for run in runs) and len(chunk) < 20:
        return False
    return len(chunk) <= 3 * len(runs)


@dataclass(slots=True)
class _Node:
    """One place in the path: who stood here, and what followed."""

    count: int = 0
    children: dict[str, _Node] = field(default_factory=dict)
    slugs: bool = False


class Templater:
    """Names endpoints, learning as it observes; memory stays bounded whatever the traffic.

    `routes` are pairs of method (or `*`) and pattern: `/users/{name}` takes one segment for a name in braces;
    a closing `*`, as in `/files/*`, takes the rest.
    """

    def __init__(self, routes: Iterable[tuple[str, str]] = (), *, most_names: int = MOST_NAMES) -> None:
        self._routes = [(method, _compile(pattern), pattern) for method, pattern in routes]
        self._most_names = most_names
        self._root = _Node()
        self._nodes = 1

    def observe(self, method: str, target: str) -> None:
        """Learn from one request."""
        path = path_of(target)
        if path is None or self._route(method, path) is not None:
            return
        node = self._root
        node.count += 1
        for name in _names(path):
            node = self._step(node, name)
            node.count += 1

    def endpoint(self, method: str, target: str) -> str:
        """`GET /orders/{id}` for a method and a request-target, by what has been observed so far."""
        path = path_of(target)
        if path is None:
            return f"{method} {target}"
        route = self._route(method, path)
        if route is not None:
            return f"{method} {route}"
        node: _Node | None = self._root
        given = []
        for name in _names(path):
            if node is not None and node.slugs and name not in node.children:
                name = name if _PLACEHOLDER.fullmatch(name) else "{slug}"
            given.append(name)
            node = node.children.get(name) if node is not None else None
        return f"{method} /{'/'.join(given)}"

    def _route(self, method: str, path: str) -> str | None:
        for wanted, expression, pattern in self._routes:
            if wanted in ("*", method) and expression.fullmatch(path):
                return pattern
        return None

    def _step(self, node: _Node, name: str) -> _Node:
        child = node.children.get(name)
        if child is not None:
            return child
        if _PLACEHOLDER.fullmatch(name):
            return self._child(node, name)
        if node.slugs or self._nodes >= _MOST_NODES:
            node.slugs = True
            return self._child(node, "{slug}")
        child = self._child(node, name)
        if sum(not _PLACEHOLDER.fullmatch(other) for other in node.children) > self._most_names:
            self._gather_slugs(node)
            return node.children.get(name) or node.children["{slug}"]
        return child

    def _child(self, node: _Node, name: str) -> _Node:
        child = node.children.get(name)
        if child is None:
            child = node.children[name] = _Node()
            self._nodes += 1
        return child

    def _gather_slugs(self, node: _Node) -> None:
        node.slugs = True
        slug = self._child(node, "{slug}")
        for name, child in list(node.children.items()):
            if _PLACEHOLDER.fullmatch(name) or child.count >= FREQUENT * node.count:
                continue
            del node.children[name]
            self._merge(slug, child)

    def _merge(self, into: _Node, other: _Node) -> None:
        self._nodes -= 1
        into.count += other.count
        into.slugs |= other.slugs
        for name, child in other.children.items():
            if name in into.children:
                self._merge(into.children[name], child)
            else:
                into.children[name] = child


def path_of(target: str) -> str | None:
    """The path of a request-target: origin-form or absolute-form; `None` for `*` and an authority."""
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if not absolute:
            return None
        target = target[absolute.end() :]
    return re.split(r"[?#]", target, maxsplit=1)[0] or "/"


def _names(path: str) -> Sequence[str]:
    segments = path[1:].split("/")
    names = [_name(segment.split(";", 1)[0]) for segment in segments[:_DEEPEST]]
    return [*names, "{path}"] if len(segments) > _DEEPEST else names


def _name(segment: str) -> str:
    file = _FILE.fullmatch(segment)
    if file and not segment.startswith("eyJ") and "@" not in unquote(segment):
        # A file keeps its extension, and its name save what is a number or a hash: main.{hash}.js
        parts = [classify(part) or part for part in file["stem"].split(".")]
        return ".".join(parts) + file["extension"]
    return classify(segment) or segment


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^}/]*\}|\*$)", pattern)
    return re.compile("".join(_part(part) for part in parts), re.DOTALL)


def _part(part: str) -> str:
    if part == "*":
        return ".*"
    return "[^/]+" if part.startswith("{") and part.endswith("}") else re.escape(part)
