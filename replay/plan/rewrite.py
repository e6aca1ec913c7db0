"""Rewrites: what the user wants changed in requests before they are sent, rule after rule, in order.

A rule says where (`header`, `query`, `form`, `json`, or the whole `target` or `body`) and what: `set` a text, `remove`
it, or `replace` a regular expression `with` another text; or it names a function to `call`. Texts may hold
`{user.password}`, a column of the test user that the session maps to, and `{env.NAME}`. Bytes that no rule speaks of
stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote_plus, unquote_plus

import orjson

from replay.errors import ConfigError
from replay.model import Header
from replay.plan.places import Place
from replay.plan.requests import substituted


class Parts(NamedTuple):
    """What of a request can be rewritten."""

    target: str
    headers: tuple[Header, ...]
    body: bytes | None


Call = Callable[[str, Parts], Parts]
"""A user's function: the session's id and the parts → the parts to send."""

_WHERE = ("header", "query", "form", "json", "part")
_WHAT = ("set", "remove", "replace")
_PLACEHOLDER = re.compile(r"\{(user|env)\.([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rule. `name` is the header's (in lower case), parameter's or field's, or the JSON path; `written` is how it
    is written where it is added; `pattern` what is replaced."""

    endpoint: re.Pattern[str] | None
    where: str
    name: str
    what: str
    text: str = ""
    pattern: re.Pattern[str] | None = None
    written: str = ""

    def apply(self, parts: Parts, fill: Callable[[str], str]) -> Parts:
        """The parts with this rule applied; `fill` replaces what stands in braces."""
        if self.what == "replace":
            # In a template a backslash means something; in what is filled in it is one.
            return self._replaced(parts, fill)
        if self.what == "remove":
            return _REMOVERS[self.where](parts, self.name)
        text = fill(self.text)
        found = False

        def choose(place: Place, value: str) -> str | None:
            nonlocal found
            found = found or self._means(place)
            return text if self._means(place) else None

        changed = Parts(*substituted(*parts, choose, self._kinds))
        return changed if found else _ADDERS[self.where](parts, self.written, text)

    @property
    def _kinds(self) -> frozenset[str]:
        return frozenset({"$" if self.where == "json" else self.where})

    def _replaced(self, parts: Parts, fill: Callable[[str], str]) -> Parts:
        assert self.pattern is not None
        pattern, template = self.pattern, _filled_template(self.text, fill)
        if self.where == "part":
            return self._whole(parts, template)
        return Parts(
            *substituted(
                *parts,
                lambda place, value: pattern.sub(template, value) if self._means(place) else None,
                self._kinds,
            )
        )

    def _means(self, place: Place) -> bool:
        if self.where == "json":
            return place.kind == "$" and not place.within and place.erased == self.name
        return place.kind == self.where and place.keys[:1] == (self.name,) and not place.within

    def _whole(self, parts: Parts, text: str) -> Parts:
        assert self.pattern is not None
        if self.name == "target":
            return parts._replace(target=self.pattern.sub(text, parts.target))
        if parts.body is None:
            return parts
        # Latin-1 is lossless; what the user writes is UTF-8 on the wire.
        pattern = re.compile(self.pattern.pattern.encode())
        return parts._replace(body=pattern.sub(text.encode(), parts.body))


def _filled_template(text: str, fill: Callable[[str], str]) -> str:
    return _PLACEHOLDER.sub(lambda found: fill(found[0]).replace("\\", "\\\\"), text)


class Rewriter:
    """Applies rules, and a user's functions, to requests. `users` are rows of test accounts, `env` the environment."""

    def __init__(
        self,
        rules: Sequence[Rewrite | Call],
        users: Sequence[Mapping[str, str]] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._rules = rules
        self._users = users
        self._env = env or {}

    def apply(self, session_id: str, share: Callable[[str, int], int], endpoint: str, parts: Parts) -> Parts:
        """The parts to send; `share` maps a session to one of so many users."""
        user = self._users[share(session_id, len(self._users))] if self._users else {}

        def fill(text: str) -> str:
            return _PLACEHOLDER.sub(lambda found: self._value(found, user), text) if "{" in text else text

        for rule in self._rules:
            if not isinstance(rule, Rewrite):
                parts = rule(session_id, parts)
            elif rule.endpoint is None or rule.endpoint.fullmatch(endpoint):
                parts = rule.apply(parts, fill)
        return parts

    def _value(self, found: re.Match[str], user: Mapping[str, str]) -> str:
        values = user if found[1] == "user" else self._env
        if found[2] not in values:
            where = (
                "[auth] users has no such column"
                if found[1] == "user"
                else "the environment has no such variable"
            )
            raise ConfigError(f"{found[0]} in [[rewrite.rule]]: {where}")
        return values[found[2]]


def compile_rewrites(
    tables: Iterable[Mapping[str, Any]], functions: Callable[[str], Call]
) -> tuple[Rewrite | Call, ...]:
    """`[[rewrite.rule]]` tables as rules; `functions` finds `module:function`. `ConfigError` names the table."""
    return tuple(_compiled(number, table, functions) for number, table in enumerate(tables, 1))


def _compiled(number: int, table: Mapping[str, Any], functions: Callable[[str], Call]) -> Rewrite | Call:
    here = f"[[rewrite.rule]] {number}"
    if "call" in table:
        if set(table) != {"call"}:
            raise ConfigError(f"{here}: call stands alone: the function sees every request")
        return functions(str(table["call"]))
    known = {*_WHERE, *_WHAT, "with", "endpoint"}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{here} has no key {key!r}; known are {', '.join(sorted({*known, 'call'}))}")
        if not isinstance(value, bool if key == "remove" else str):
            raise ConfigError(f"{here}: {key} must be {'true' if key == 'remove' else 'a text'}")
    where, what = [key for key in _WHERE if key in table], [key for key in _WHAT if key in table]
    if len(where) != 1 or len(what) != 1 or ("with" in table) != (what == ["replace"]):
        raise ConfigError(
            f"{here}: write one of {', '.join(_WHERE)}, and one of set, remove, or replace and with:"
            ' header = "X-Env", set = "staging"'
        )
    return _rule(here, where[0], what[0], table)


def _rule(here: str, where: str, what: str, table: Mapping[str, Any]) -> Rewrite:
    name = table[where]
    if where == "part" and (name not in ("target", "body") or what != "replace"):
        raise ConfigError(f'{here}: part is "target" or "body", and goes with replace and with')
    if where == "json" and not name.startswith("$"):
        raise ConfigError(f'{here}: json is a path such as "$.user.password" or "$.items[*].price"')
    try:
        pattern = re.compile(table["replace"]) if what == "replace" else None
    except re.error as error:
        raise ConfigError(f"{here}: replace is no regular expression: {error}") from None
    if pattern is not None:
        _check_template(here, table["replace"], table["with"])
    endpoint = table.get("endpoint")
    return Rewrite(
        endpoint=None if endpoint is None else re.compile(".*".join(map(re.escape, endpoint.split("*")))),
        where=where,
        name=name.lower() if where == "header" else name,
        what=what,
        text=table.get("with", table.get("set", "")),
        pattern=pattern,
        written=name,
    )


def _check_template(here: str, pattern: str, template: str) -> None:
    """`ConfigError` where a template speaks of groups that there are not."""
    # This matches the empty text, if nothing else, and has the groups of the pattern.
    found = re.compile(f"{pattern}|").match("")
    try:
        if found is not None:
            found.expand(template)
    except (re.error, IndexError) as error:
        raise ConfigError(f"{here}: with = {template!r}: {error}") from None


# Where there is nothing yet, and where there is to be nothing.


def _without_header(parts: Parts, name: str) -> Parts:
    return parts._replace(headers=tuple(header for header in parts.headers if header[0].lower() != name))


def _with_header(parts: Parts, name: str, text: str) -> Parts:
    return parts._replace(headers=(*_without_header(parts, name.lower()).headers, (name, text)))


def _without_query(parts: Parts, name: str) -> Parts:
    path, question, query = parts.target.partition("?")
    kept = _others(query, name)
    return parts._replace(target=f"{path}?{kept}" if kept else path) if question else parts


def _with_query(parts: Parts, name: str, text: str) -> Parts:
    glue = "&" if "?" in parts.target else "?"
    return parts._replace(target=f"{parts.target}{glue}{quote_plus(name)}={quote_plus(text)}")


def _without_field(parts: Parts, name: str) -> Parts:
    return parts._replace(body=_others((parts.body or b"").decode("latin-1"), name).encode("latin-1"))


def _with_field(parts: Parts, name: str, text: str) -> Parts:
    if not any(
        "urlencoded" in value.lower() for key, value in parts.headers if key.lower() == "content-type"
    ):
        return parts
    glue = b"&" if parts.body else b""
    return parts._replace(body=(parts.body or b"") + glue + f"{quote_plus(name)}={quote_plus(text)}".encode())


def _others(pairs: str, name: str) -> str:
    return "&".join(pair for pair in pairs.split("&") if unquote_plus(pair.partition("=")[0]) != name)


def _without_member(parts: Parts, path: str) -> Parts:
    return _edited(parts, path, lambda holder, key: holder.pop(key, None))


def _with_member(parts: Parts, path: str, text: str) -> Parts:
    return _edited(parts, path, lambda holder, key: holder.__setitem__(key, text))


def _edited(parts: Parts, path: str, edit: Callable[[dict[str, Any], str], Any]) -> Parts:
    """A JSON body written anew with one member changed; as it is where it is none, or has no such place."""
    try:
        tree = orjson.loads(parts.body or b"")
    except orjson.JSONDecodeError:
        return parts
    holders, (*steps, last) = [tree], re.findall(r"\.([^.\[]+)|(\[\*\])", path) or [("", "")]
    for name, each in steps:
        if each:
            holders = [item for holder in holders if isinstance(holder, list) for item in holder]
        else:
            holders = [holder[name] for holder in holders if isinstance(holder, dict) and name in holder]
    objects = [holder for holder in holders if isinstance(holder, dict)]
    if not objects or not last[0]:
        return parts
    for holder in objects:
        edit(holder, last[0])
    return parts._replace(body=orjson.dumps(tree))


_REMOVERS: dict[str, Callable[[Parts, str], Parts]] = {
    "header": _without_header,
    "query": _without_query,
    "form": _without_field,
    "json": _without_member,
}
_ADDERS: dict[str, Callable[[Parts, str, str], Parts]] = {
    "header": _with_header,
    "query": _with_query,
    "form": _with_field,
    "json": _with_member,
}
