"""What an answer hands out: values and where they stand, in headers, cookies, JSON, HTML and the claims of JWTs.

`produced` lists them all, for the recording; `find` looks one up, for the live answer. Both read the same way.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from html import unescape
from typing import Any
from urllib.parse import unquote, unquote_plus

import orjson

from replay.codings import decode
from replay.model import Header
from replay.plan.places import WEAK, Key, Place, strength

MOST_VALUES = 512
"""Values taken from one answer: longer lists are catalogues."""

_UNTOLD = frozenset(
    {
        *(
            "date",
            "age",
            "server",
            "content-length",
            "content-type",
            "content-encoding",
            "connection",
            "vary",
        ),
        *("cache-control", "expires", "last-modified", "keep-alive", "transfer-encoding", "accept-ranges"),
        *("via", "alt-svc", "strict-transport-security", "x-request-id", "x-correlation-id", "x-trace-id"),
        *("content-security-policy", "x-frame-options", "access-control-allow-origin", "server-timing"),
        *("set-cookie", "x-runtime", "report-to", "nel", "cf-ray", "traceparent", "content-language"),
    }
)
_URLS = frozenset({"location", "content-location"})
_URL = re.compile(r"(?:https?://[^/\s?#]+)?/[^\s#]*(?:#.*)?")
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
_ELEMENT = re.compile(r"<(input|meta|a|form)\b([^<>]{0,2000})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""(?<![\w-])([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")


class Answer:
    """One answer, its body decoded and parsed when first asked about."""

    __slots__ = ("_body", "_json", "_kind", "_lists", "_pages", "headers")

    def __init__(self, headers: Sequence[Header], body: bytes | None) -> None:
        self.headers = headers
        self._body = body or b""
        self._json: Any = ...
        self._lists: dict[str, frozenset[str | None]] = {}
        self._pages: dict[str, list[tuple[Place, str]]] | None = None
        self._kind = _value(headers, "content-type").partition(";")[0].strip().lower()

    def produced(self) -> Iterator[tuple[Place, str]]:
        """Every value with its place: cookies first, then headers, then the body; at most `MOST_VALUES` of it."""
        for name, value in self.headers:
            lower = name.lower()
            if lower == "set-cookie":
                cookie, content, gone = set_cookie(value)
                if content and not gone:
                    yield from _spread(Place("cookie", (cookie,)), content)
            elif lower not in _UNTOLD:
                yield from _spread(Place("header", (lower,)), value.strip())
        for count, found in enumerate(self._in_body()):
            if count >= MOST_VALUES:
                return
            yield found

    def find(self, place: Place, recorded: str, beside: Collection[str] = ()) -> str | None:
        """The live value at a place that held `recorded`; `None` where there is none.

        `beside` are all values that the recorded answer had at that place, of a list. Where they are in the live list
        too, or all of the live list is among them, it is data that both sides have, perhaps in another order: then the
        recorded value is the live one. Else the live one has its number in the list.
        """
        if place.kind == "$":
            return self._find_json(place, recorded, beside)
        if place.kind == "cookie":
            return next(
                (
                    _within(c, place.within)
                    for n, c, gone in self.cookies()
                    if n == place.keys[0] and not gone
                ),
                None,
            )
        if place.kind == "header":
            value = _value(self.headers, str(place.keys[0])).strip()
            return _within(value, place.within) if value else None
        return self._find_element(place, recorded, beside)

    def cookies(self) -> Iterator[tuple[str, str, bool]]:
        """Name, value and whether it is a deletion, of each Set-Cookie."""
        return (set_cookie(value) for name, value in self.headers if name.lower() == "set-cookie")

    @property
    def json(self) -> Any:
        """The body as JSON, `None` where it is none."""
        if self._json is ...:
            self._json = None
            if "json" in self._kind or (not self._kind and self._body[:1] in (b"{", b"[")):
                with suppress(orjson.JSONDecodeError):
                    self._json = orjson.loads(self._decoded())
        return self._json

    def _decoded(self) -> bytes:
        encodings = _value(self.headers, "content-encoding")
        return decode(self._body, encodings)[0] if encodings else self._body

    def _in_body(self) -> Iterator[tuple[Place, str]]:
        if not self._body:
            return
        if self.json is not None:
            yield from _leaves(self.json, "$", ())
        elif "html" in self._kind:
            for found in self._elements().values():
                yield from found

    def _elements(self) -> dict[str, list[tuple[Place, str]]]:
        """Values in HTML by their erased place, in the order of the page."""
        if self._pages is None:
            self._pages = {}
            if "html" in self._kind:
                for place, value in elements(self._decoded().decode("utf-8", "replace")):
                    self._pages.setdefault(place.erased, []).append((place, value))
        return self._pages

    def _find_element(self, place: Place, recorded: str, beside: Collection[str]) -> str | None:
        values = dict(self._elements().get(place.erased, ()))
        if _is_shared(values.values(), recorded, beside):
            return recorded if recorded in values.values() else None
        return values.get(place)

    def _find_json(self, place: Place, recorded: str, beside: Collection[str]) -> str | None:
        if any(isinstance(key, int) for key in place.keys):
            values = self._listed(place)
            if _is_shared(values, recorded, beside):
                return recorded if recorded in values else None
        tree = self.json
        for key in place.keys:
            try:
                tree = tree[key]
            except (KeyError, IndexError, TypeError):
                return None
        return _within(tree, place.within)

    def _listed(self, place: Place) -> frozenset[str | None]:
        """All values at that place of a list."""
        known = self._lists.get(place.erased)
        if known is None:
            found = (_within(value, place.within) for value in _family(self.json, place.keys))
            known = self._lists[place.erased] = frozenset(found)
        return known


def _is_shared(live: Collection[str | None], recorded: str, beside: Collection[str]) -> bool:
    """Whether two lists are of the same data: one of them is part of the other."""
    mine, theirs = beside or {recorded}, frozenset(live)
    return bool(theirs) and (theirs.issuperset(mine) or theirs.issubset(mine))


def text_of(headers: Sequence[Header], body: bytes | None) -> bytes:
    """All that an answer says: the values of its headers, and its body decoded."""
    told = "\n".join([value for _, value in headers]).encode()
    encodings = _value(headers, "content-encoding")
    return b"%b\n%b" % (told, decode(body, encodings)[0] if body and encodings else body or b"")


def set_cookie(value: str) -> tuple[str, str, bool]:
    """Name and value of a Set-Cookie, and whether it takes the cookie away."""
    pair, _, attributes = value.partition(";")
    name, _, content = pair.partition("=")
    content = content.strip()
    lower = attributes.lower().replace(" ", "")
    gone = not content.strip('"') or "max-age=0" in lower or "01-jan-1970" in lower or "01jan1970" in lower
    return name.strip(), content, gone


def elements(page: str) -> Iterator[tuple[Place, str]]:
    """Hidden inputs, metas, and what the paths and queries of links and forms hold."""
    seen: dict[str, int] = {}
    for element in _ELEMENT.finditer(page):
        tag = element[1].lower()
        attributes = {
            m[1].lower(): unescape(m[2] or m[3] or m[4] or "") for m in _ATTRIBUTE.finditer(element[2])
        }
        if tag == "input":
            if attributes.get("type", "").lower() == "hidden" and attributes.get("name"):
                yield from _numbered("form", attributes["name"], attributes.get("value", ""), seen)
        elif tag == "meta":
            if attributes.get("name") and attributes["name"].lower() != "viewport":
                yield from _numbered("meta", attributes["name"], attributes.get("content", ""), seen)
        else:
            yield from _link(attributes.get("href" if tag == "a" else "action", ""), seen)


def _numbered(kind: str, name: str, value: str, seen: dict[str, int]) -> Iterator[tuple[Place, str]]:
    index = seen[name] = seen.get(name, -1) + 1
    if value:
        yield Place(kind, (name, index)), value


def _link(url: str, seen: dict[str, int]) -> Iterator[tuple[Place, str]]:
    """A link's values; links that differ in their values only are numbered: `/orders/{}/edit`."""
    if not _URL.fullmatch(url):
        return
    values = list(_url_values(url))
    path = [part for part in _path_of(url).split("/") if part]
    telling = {step[1] for step, value in values if step[0] == "path" and strength(value) >= WEAK}
    skeleton = "/" + "/".join("{}" if i in telling else part for i, part in enumerate(path))
    names = sorted(str(step[1]) for step, _ in values if step[0] == "query")
    skeleton += "?" + "&".join(names) if names else ""
    index = seen[skeleton] = seen.get(skeleton, -1) + 1
    for step, value in values:
        if step[0] == "query" or step[1] in telling:
            yield Place("link", (skeleton, index), step[:2]), value


def _leaves(tree: Any, kind: str, keys: tuple[Key, ...]) -> Iterator[tuple[Place, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, kind, (*keys, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _leaves(value, kind, (*keys, index))
    elif isinstance(tree, str):
        yield from _spread(Place(kind, keys), tree)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield Place(kind, keys), str(tree)


def _spread(place: Place, text: str) -> Iterator[tuple[Place, str]]:
    """The text itself, and what is inside it where it is a URL or a JWT."""
    if not text:
        return
    yield place, text
    if text[0] == "/" or text.startswith("http"):
        if _URL.fullmatch(text):
            for step, value in _url_values(text):
                yield place._replace(within=step), value
    elif text.startswith("eyJ") and _JWT.fullmatch(text):
        for claim, value in _claims(text).items():
            if type(value) in (str, int):
                yield place._replace(within=("jwt", claim)), str(value)


def _within(text: Any, steps: tuple[Key, ...]) -> str | None:
    """What the steps lead to inside a text: a part of its path, a parameter, a claim."""
    if type(text) not in (str, int, float):
        return None
    if not steps:
        return str(text)
    if steps[0] == "jwt":
        claim = _claims(str(text)).get(str(steps[1])) if _JWT.fullmatch(str(text)) else None
        return None if claim is None else str(claim)
    return next((value for step, value in _url_values(str(text)) if step == steps), None)


def _url_values(url: str) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Parts of the path, each with its number and the name before it, and parameters of the query."""
    before = ""
    for index, part in enumerate(part for part in _path_of(url).split("/") if part):
        value = unquote(part)
        yield (("path", index, before) if before else ("path", index)), value
        before = "" if strength(value) >= WEAK else value
    query = url.partition("#")[0].partition("?")[2]
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if value:
            yield ("query", unquote_plus(name)), unquote_plus(value)


def _path_of(url: str) -> str:
    path = url.partition("#")[0].partition("?")[0]
    return path.partition("://")[2].partition("/")[2] if "://" in path else path


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _family(tree: Any, keys: tuple[Key, ...]) -> Iterator[Any]:
    """All that stands where `keys` lead, whatever the indices."""
    for depth, key in enumerate(keys):
        if isinstance(key, int):
            if isinstance(tree, list):
                for item in tree:
                    yield from _family(item, keys[depth + 1 :])
            return
        if not isinstance(tree, dict) or key not in tree:
            return
        tree = tree[key]
    yield tree


def _value(headers: Sequence[Header], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")
