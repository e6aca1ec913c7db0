"""A request's values and where they stand, and the request as a script that other values can be written into.

One walk serves both: it offers every value with its place to `want`, and what `want` answers with an origin becomes
a slot; everything else stays the bytes it was. Values are found inside what wraps them (a form field that holds
JSON, a base64 of JSON, the claims of a JWT, a URL in a header), and written back the same way. A slot keeps the
recorded bytes: written with the recorded value, a script gives exactly what was recorded.

A piece of a script is bytes, or a tuple that opens with what it is: `SLOT`, `WRAP`, `COOKIES`, `LENGTH` or `BLOCK`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import orjson

from replay.model import Header
from replay.plan.places import Key, Place

SLOT, WRAP, COOKIES, LENGTH, BLOCK = range(5)
Piece = Any
"""`bytes`; `(SLOT, value, codec, raw, origin)`; `(WRAP, codec, raw, pieces)`; `(COOKIES, raw, ((name, origin), ...))`;
`(LENGTH, raw)`; and, last of a head, `(BLOCK, number, pieces)`: header lines that later requests of the session name
by `(BLOCK, number)`."""
Script = tuple[tuple[Piece, ...], tuple[Piece, ...], bool]
"""The pieces of the head, those of the body, and whether the body goes out as one chunk."""
Want = Callable[[Place, str], Any]
"""Takes a place and the value there; gives an origin for what is to become a slot, `None` for the rest."""

_DEEPEST = 3
_MOST_KEPT = 16
_SHORTEST_CODED = 16
_LARGEST = 256 << 10
_UNTOLD = frozenset(
    {
        *(
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "accept-language",
            "content-type",
            "content-length",
        ),
        *("connection", "transfer-encoding", "expect", "te", "upgrade-insecure-requests", "cache-control"),
        *("pragma", "origin", "dnt", "priority", "content-encoding", "x-forwarded-for", "x-forwarded-proto"),
        *("sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "if-modified-since", "via"),
    }
)
_URL = re.compile(r"(?:https?://[^/\s?#]+)?/[^\s#]*(?:#.*)?")
_STEM = re.compile(r"(.+)(\.(?:json|xml|html?|csv|pdf|txt))")
_JWT = re.compile(r"(eyJ[\w-]+)\.([\w-]+)\.([\w-]*)")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}\[\],:]|[ \t\r\n]+')
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_DISPOSITION = re.compile(r"^content-disposition:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(r'[; ]name="?([^"\r\n;]*)', re.IGNORECASE)


class Live(Protocol):
    """What a script asks for while it is written out."""

    def value(self, recorded: str, origin: Any) -> str | None:
        """The live value in place of a recorded one; `None` where there is none."""

    def cookie(self, name: str) -> str | None:
        """The live value of a cookie, `None` where the server has set none."""

    def follows(self) -> bool:
        """Whether the server has set any cookie."""

    def block(self, number: int) -> tuple[bytes, bool]:
        """The pieces of a block written out (see `joined`), by the number of the last block that had it."""


def consumed(target: str, headers: Sequence[Header], body: bytes | None) -> list[tuple[Place, str]]:
    """All values of a request with their places."""
    found: list[tuple[Place, str]] = []

    def want(place: Place, value: str) -> None:
        found.append((place, value))

    _target(target, want)
    for name, value in headers:
        _header(name, value, want)
    if body:
        _body(body.decode("latin-1"), headers, want)
    return found


_NO_BODY: tuple[Piece, ...] = ()
_IN_START = frozenset({"path", "query"})
KINDS = frozenset({"path", "query", "header", "cookie", "$", "form"})


def script(
    head: bytes,
    body: bytes,
    chunked: bool,
    want: Want,
    kinds: frozenset[str] = KINDS,
    known: Collection[bytes] | None = None,
    kept: Kept | None = None,
) -> Script | None:
    """The script of a request that is ready to send, `None` where nothing in it is wanted.

    Only places of these `kinds` are looked at, and only texts that may hold one of the `known` values (in UTF-8);
    cookies always are. `kept` is what earlier requests of the session that are written alike have left, while the
    same is wanted.
    """
    start, _, block = head.partition(b"\r\n")
    in_body: tuple[Piece, ...] = (body,) if body else _NO_BODY
    if body and not kinds.isdisjoint(("$", "form")) and _may_hold(body, known):
        in_body = _packed(_body(body.decode("latin-1"), _lines(block), want))
    plain = in_body is _NO_BODY or _is_plain(in_body)
    if kept is None or not plain:
        in_block = _block(block, want, kinds, known, follows_length=not plain and not chunked)
        in_start = _start(start, want, kinds, known)
    else:
        in_block = kept.blocks.get(block) or kept.block(block, _block(block, want, kinds, known, False))
        in_start = kept.starts.get(start) or kept.start(start, _start(start, want, kinds, known))
    if plain and len(in_start) == len(in_block) == 1 and type(in_start[0]) is type(in_block[0]) is bytes:
        return None
    return (*in_start, *in_block), in_body, chunked


class Kept:
    """Request lines and header blocks of a session, as pieces: what its requests have in common."""

    __slots__ = ("blocks", "starts")

    def __init__(self) -> None:
        self.blocks: dict[bytes, tuple[Piece, ...]] = {}
        self.starts: dict[bytes, tuple[Piece, ...]] = {}

    def clear(self) -> None:
        """Something else is wanted from now on."""
        self.blocks.clear()
        self.starts.clear()

    def start(self, start: bytes, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Keep a request line that has slots."""
        if len(pieces) > 1:
            if len(self.starts) >= _MOST_KEPT:
                self.starts.clear()
            self.starts[start] = pieces
        return pieces

    def block(self, block: bytes, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """A header block for this request. What is kept for the next ones is its number, where it has slots."""
        if len(self.blocks) >= _MOST_KEPT:
            self.blocks.clear()
        if _is_plain(pieces):
            self.blocks[block] = pieces
            return pieces
        number = len(self.blocks)
        self.blocks[block] = ((BLOCK, number),)
        return ((BLOCK, number, pieces),)


def _start(
    start: bytes, want: Want, kinds: frozenset[str], known: Collection[bytes] | None
) -> tuple[Piece, ...]:
    """The request line, its end included."""
    if kinds.isdisjoint(_IN_START) or not _may_hold(start, known):
        return (start + b"\r\n",)
    method, _, rest = start.decode("latin-1").partition(" ")
    target, _, version = rest.rpartition(" ")
    return _packed([f"{method} ", *_target(target, want), f" {version}\r\n"])


def _block(
    block: bytes, want: Want, kinds: frozenset[str], known: Collection[bytes] | None, follows_length: bool
) -> tuple[Piece, ...]:
    """The header lines and the blank line after them."""
    pieces: list[Piece] = []
    for name, value in _lines(block):
        lower = name.lower()
        pieces.append(f"{name}: ")
        if follows_length and lower == "content-length":
            pieces.append((LENGTH, value.encode("latin-1")))
        elif lower == "cookie" or (
            "header" in kinds and lower not in _UNTOLD and _may_hold(value.encode("latin-1"), known)
        ):
            pieces += _header(name, value, want)
        else:
            pieces.append(value)
        pieces.append("\r\n")
    return _packed([*pieces, "\r\n"])


def _lines(block: bytes) -> list[Header]:
    rows = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    parted = (row.partition(":") for row in rows if row)
    return [(name, value.removeprefix(" ")) for name, _, value in parted]


_ENCODED = re.compile(rb"[%+\\\x80-\xff]|[A-Za-z0-9_-]{16}")


def _may_hold(text: bytes, known: Collection[bytes] | None) -> bool:
    """Whether a text holds one of the values, or may in some encoding: a cheap look before the close one."""
    if known is None or _ENCODED.search(text):
        return True
    for value in known:  # noqa: SIM110 (a generator would take longer than the loop: this is asked for every request)
        if value in text:
            return True
    return False


def written(made: Script, live: Live) -> tuple[bytes, bytes, bool]:
    """Head and body with live values, and whether any of them is another than the recorded one."""
    in_head, in_body, chunked = made
    body, changed = joined(in_body, live) if in_body else (b"", False)
    if len(in_head) == 2 and type(in_head[0]) is bytes and in_head[1][0] == BLOCK:
        # Most requests: nothing live but in header lines that the session has sent before.
        head, also = live.block(in_head[1][1])
        head = in_head[0] + head
    else:
        head, also = joined(in_head, live, len(body))
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    return head, body, changed or also


DEFINING = 3
"""The length of a piece that brings a block: no other piece that ends a head has it, but bytes may."""


def defined(made: Script) -> tuple[int, tuple[Piece, ...]] | None:
    """The block that later requests of the session may name, if this one brings it: its number and its pieces."""
    last = made[0][-1]
    return (last[1], last[2]) if type(last) is tuple and last[0] == BLOCK and len(last) == DEFINING else None


class Dropped:
    """Blocks that came with requests which were dropped, until a request that names one is sent: it brings it then."""

    def __init__(self) -> None:
        self._blocks: dict[str, dict[int, tuple[Piece, ...]]] = {}

    def drop(self, session_id: str, made: Script) -> None:
        """A request that is not sent."""
        block = defined(made)
        if block is not None:
            self._blocks.setdefault(session_id, {})[block[0]] = block[1]

    def bring(self, session_id: str, made: Script) -> Script:
        """The script of a request that is, with the block that nobody has brought yet."""
        blocks, in_head, last = self._blocks.get(session_id), made[0], made[0][-1]
        if not blocks or type(last) is not tuple or last[0] != BLOCK:
            return made
        pieces = blocks.pop(last[1], None)
        if pieces is None or len(last) == DEFINING:
            return made
        return (*in_head[:-1], (BLOCK, last[1], pieces)), made[1], made[2]


def whole(made: Script, blocks: Mapping[int, tuple[Piece, ...]]) -> Script:
    """The script with its block's pieces in place of the number, which may come to mean another."""
    in_head, in_body, chunked = made
    last = in_head[-1]
    if type(last) is not tuple or last[0] != BLOCK:
        return made
    return (*in_head[:-1], *blocks[last[1]]), in_body, chunked


class _Chosen:
    """Writes what was chosen for each place, whatever the session has."""

    def value(self, recorded: str, origin: Any) -> str | None:
        return str(origin[0])

    def cookie(self, name: str) -> str | None:
        return None

    def follows(self) -> bool:
        return False

    def block(self, number: int) -> tuple[bytes, bool]:
        raise NotImplementedError


def substituted(
    target: str,
    headers: Sequence[Header],
    body: bytes | None,
    choose: Callable[[Place, str], str | None],
    kinds: frozenset[str] = KINDS,
) -> tuple[str, tuple[Header, ...], bytes | None]:
    """The request's parts with other values where `choose` gives one; only places of these `kinds` are offered."""

    def want(place: Place, value: str) -> Any:
        chosen = choose(place, value)
        return None if chosen is None else (chosen,)

    def text(pieces: list[Piece]) -> str:
        return joined(_packed(pieces), _Chosen())[0].decode("latin-1")

    if not kinds.isdisjoint(("path", "query")):
        target = text(_target(target, want))
    new = tuple((name, text(_header(name, value, want, every="header" in kinds))) for name, value in headers)
    if not kinds.isdisjoint(("$", "form")) and body:
        body = text(_body(body.decode("latin-1"), headers, want)).encode("latin-1")
    return target, new if not kinds.isdisjoint(("header", "cookie")) else tuple(headers), body


def joined(pieces: tuple[Piece, ...], live: Live, length: int = 0) -> tuple[bytes, bool]:
    """The pieces written out, `length` being that of the body they tell of; and whether anything is another."""
    parts, changed = [], False
    for piece in pieces:
        if type(piece) is bytes:
            parts.append(piece)
            continue
        kind = piece[0]
        if kind == BLOCK:
            text, differs = live.block(piece[1])
            parts.append(text)
            changed = changed or differs
            continue
        if kind == LENGTH:
            # The recorded line may have been written oddly: it stays where it is still true.
            told = b"%d" % length
            parts.append(piece[1] if piece[1].strip() == told else told)
            continue
        new: bytes | None
        if kind == SLOT:
            value = live.value(piece[1], piece[4])
            new = None if value is None or value == piece[1] else encode(piece[2], value)
            raw = piece[3]
        elif kind == WRAP:
            inner, differs = joined(piece[3], live)
            new = encode(piece[1], inner.decode("utf-8", "surrogateescape")) if differs else None
            raw = piece[2]
        else:
            raw = piece[1]
            new = (
                _cookies(raw.decode("latin-1"), dict(piece[2]), live) if piece[2] or live.follows() else None
            )
        parts.append(raw if new is None else new)
        changed = changed or new is not None
    return b"".join(parts), changed


def _cookies(raw: str, origins: dict[str, Any], live: Live) -> bytes | None:
    """The Cookie header with the server's own values for the names it has; `None` where none differs."""
    pairs, changed = raw.split(";"), False
    for index, pair in enumerate(pairs):
        name, equals, value = pair.partition("=")
        origin = origins.get(name.strip())
        new = live.cookie(name.strip())
        if new is None and origin is not None:
            new = live.value(value.strip(), origin)
        if new is not None and new != value.strip():
            pairs[index], changed = f"{name}{equals}{new}", True
    return encode("raw", ";".join(pairs)) if changed else None


# Ways of writing a value.


def encode(codec: str, value: str) -> bytes:
    """The value as it is written in a place of that kind."""
    if codec == "raw":
        if value.isascii() and value.isprintable():
            return value.encode()
        return _latin("".join(c for c in value if c >= " " and c != "\x7f"))
    if codec == "path":
        return quote(value, safe="!$&'()*+,;=:@~-._").encode()
    if codec in ("query", "form"):
        return (quote if codec == "query" else quote_plus)(value, safe="!$'()*,:@~-._/?").encode()
    if codec == "json":
        return orjson.dumps(value.encode("utf-8", "replace").decode())[1:-1]
    if codec == "number":
        return value.encode() if _NUMBER.fullmatch(value) else orjson.dumps(value)
    if codec == "plain":
        return value.encode("utf-8", "surrogateescape")
    return _base64(codec, value.encode("utf-8", "surrogateescape"))


def _base64(codec: str, data: bytes) -> bytes:
    text = base64.urlsafe_b64encode(data) if "url" in codec else base64.b64encode(data)
    return text.rstrip(b"=") if codec.endswith("-") else text


_BASES = ("b64", "b64-", "b64url", "b64url-")


def _latin(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


# The walk. Text is latin-1 decoded, as on the wire; pieces are text until they are packed.


def _target(target: str, want: Want) -> list[Piece]:
    return _url(target, lambda kind, key: Place(kind, (key,)), want)


def _header(name: str, value: str, want: Want, every: bool = False) -> list[Piece]:
    """A header's value; those that say nothing of a session are offered with `every` only, and then whole."""
    lower = name.lower()
    if every:
        return _text(Place("header", (lower,)), value, value, "raw", want)
    if lower in _UNTOLD:
        return [value]
    if lower == "cookie":
        return _cookie(value, want)
    place = Place("header", (lower,))
    if lower in ("authorization", "proxy-authorization") and " " in value.strip():
        scheme, blank, rest = value.partition(" ")
        if scheme.lower() == "basic":
            return [scheme + blank, *_basic(place, rest, want)]
        return [scheme + blank, *_text(place, rest, rest, "raw", want)]
    core = value.strip()
    before, _, after = value.partition(core) if core else (value, "", "")
    return [before, *_text(place, core, core, "raw", want), after] if core else [value]


def _basic(place: Place, raw: str, want: Want) -> list[Piece]:
    opened = _opened(raw)
    if opened is None or ":" not in opened[1]:
        return [raw]
    codec, text = opened
    user, _, password = text.partition(":")
    pieces = [
        *_text(place._replace(within=("user",)), user, _utf8(user), "plain", want),
        ":",
        *_text(place._replace(within=("password",)), password, _utf8(password), "plain", want),
    ]
    return _wrapped(codec, raw, pieces)


def _cookie(raw: str, want: Want) -> list[Piece]:
    origins = []
    for pair in raw.split(";"):
        name, _, value = pair.partition("=")
        origin = want(Place("cookie", (name.strip(),)), value.strip())
        if origin is not None:
            origins.append((name.strip(), origin))
    return [(COOKIES, raw.encode("latin-1"), tuple(origins))]


def _body(text: str, headers: Sequence[Header], want: Want) -> list[Piece]:
    kind = encoding = ""
    for name, value in headers:
        lower = name.lower()
        kind = value.lower() if lower == "content-type" else kind
        encoding = value if lower == "content-encoding" else encoding
    if encoding or len(text) > _LARGEST:
        return [text]
    if "json" in kind or (not kind and text[:1] in "{["):
        return _json(Place("$"), text, want)
    if "urlencoded" in kind:
        return _pairs(text, lambda _, key: Place("form", (key,)), "form", want)
    if kind.startswith("multipart/"):
        return _multipart(text, want)
    return [text]


def _multipart(text: str, want: Want) -> list[Piece]:
    boundary, line_end, _ = text.partition("\r\n")
    if not boundary.startswith("--") or not line_end:
        return [text]
    delimiter = f"\r\n{boundary}"
    first, *others = text.split(delimiter)
    return [piece for part in (first, *map(delimiter.__add__, others)) for piece in _part(part, want)]


def _part(part: str, want: Want) -> list[Piece]:
    head, blank, value = part.partition("\r\n\r\n")
    disposition = _DISPOSITION.search(head)
    name = _NAME.search(disposition[1]) if disposition else None
    if not blank or disposition is None or name is None or "filename" in disposition[1].lower():
        return [part]
    return [head + blank, *_text(Place("form", (_utf8(name[1]),)), value, _utf8(value), "plain", want)]


Locate = Callable[[str, Key], Place]


def _url(url: str, locate: Locate, want: Want) -> list[Piece]:
    rest, hash_mark, fragment = url.partition("#")
    path, question, query = rest.partition("?")
    pieces: list[Piece] = []
    if "://" in path:
        scheme, _, path = path.partition("://")
        host, slash, path = path.partition("/")
        pieces.append(f"{scheme}://{host}{slash}")
    number = 0
    for index, part in enumerate(path.split("/")):
        pieces.append("/" if index else "")
        if part:
            pieces += _segment(locate("path", number), part, want)
            number += 1
    pieces.append(question)
    if query:
        pieces += _pairs(query, locate, "query", want)
    pieces.append(hash_mark + fragment)
    return pieces


def _segment(place: Place, part: str, want: Want) -> list[Piece]:
    whole = _text(place, part, unquote(part) if "%" in part else part, "path", want)
    stem = _STEM.fullmatch(part) if "." in part and _is_text(whole) else None
    return [*_text(place, stem[1], unquote(stem[1]), "path", want), stem[2]] if stem else whole


def _pairs(text: str, locate: Locate, kind: str, want: Want) -> list[Piece]:
    pieces: list[Piece] = []
    # `%20` or `+`: live values are written the way the recorded ones were.
    codec = "query" if "%20" in text else "form"
    for index, pair in enumerate(text.split("&")):
        name, equals, value = pair.partition("=")
        pieces.append(("&" if index else "") + name + equals)
        if value:
            place = locate(kind, unquote_plus(name))
            pieces += _text(place, value, unquote_plus(value), codec, want)
    return pieces


def _text(place: Place, raw: str, value: str, codec: str, want: Want, depth: int = 0) -> list[Piece]:
    """A value written as `raw`: a slot where it is wanted, else what is inside it."""
    origin = want(place, value)
    if origin is not None:
        return [(SLOT, value, codec, raw.encode("latin-1"), origin)]
    if depth >= _DEEPEST or len(value) < 4:
        return [raw]
    plain = codec in ("raw", "plain")
    text = raw if plain else value.encode("utf-8", "surrogatepass").decode("latin-1")
    inner = _inside(place, text, want, depth + 1)
    if inner is None or _is_text(inner):
        return [raw]
    return inner if plain else _wrapped(codec, raw, inner)


def _inside(place: Place, text: str, want: Want, depth: int) -> list[Piece] | None:
    """What a text wraps, `None` where it is no wrapping known here."""
    if text[0] in "/h" and _URL.fullmatch(text):
        return _url(text, lambda kind, key: place._replace(within=(*place.within, kind, key)), want)
    if text[0] in "{[":
        return _json(place._replace(within=(*place.within, "json")), text, want, depth)
    if len(text) < _SHORTEST_CODED:
        return None
    if jwt := _JWT.fullmatch(text):
        payload = _opened(jwt[2])
        if payload is None or payload[1][:1] != "{":
            return None
        inner = _json(place._replace(within=(*place.within, "jwt")), payload[1], want, depth)
        return [f"{jwt[1]}.", *_wrapped(payload[0], jwt[2], inner), f".{jwt[3]}"]
    if _BASE64.fullmatch(text) and (opened := _opened(text)) and opened[1].isprintable():
        codec, plain = opened
        inner = _text(
            place._replace(within=(*place.within, "base64")), plain, _utf8(plain), "plain", want, depth
        )
        return _wrapped(codec, text, inner)
    return None


def _wrapped(codec: str, raw: str, inner: list[Piece]) -> list[Piece]:
    return [raw] if _is_text(inner) else [(WRAP, codec, raw.encode("latin-1"), _packed(inner))]


def _opened(text: str) -> tuple[str, str] | None:
    """The codec that gives exactly this base64 text, and what it says."""
    swapped = text.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(swapped + "=" * (-len(swapped) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    codec = next((name for name in _BASES if _base64(name, data) == text.encode("latin-1")), None)
    return None if codec is None else (codec, data.decode("latin-1"))


def _json(place: Place, text: str, want: Want, depth: int = 0) -> list[Piece]:
    """JSON text leaf by leaf; as it stands where it is none."""
    try:
        orjson.loads(text.encode("latin-1"))
    except orjson.JSONDecodeError:
        return [text]
    pieces: list[Piece] = []
    for token, keys in _json_tokens(text):
        if keys is None or token in ("true", "false", "null"):
            pieces.append(token)
        elif place.kind == "$" and not place.within:
            pieces += _json_leaf(Place("$", (*place.keys, *keys)), token, want, depth)
        else:
            pieces += _json_leaf(place._replace(within=(*place.within, *keys)), token, want, depth)
    return pieces


def _json_leaf(place: Place, token: str, want: Want, depth: int) -> list[Piece]:
    if token[0] != '"':
        return _text(place, token, token, "number", want, depth)
    raw = token[1:-1]
    value = orjson.loads(token.encode("latin-1")) if "\\" in raw else _utf8(raw)
    return ['"', *_text(place, raw, value, "json", want, depth), '"']


def _json_tokens(text: str) -> Iterator[tuple[str, tuple[Key, ...] | None]]:
    """Tokens of valid JSON; leaves with the keys that lead to them, everything else with `None`."""
    keys: list[Any] = []
    naming = False
    for match in _TOKEN.finditer(text):
        word = match[0]
        if word == "{":
            keys.append("")
            naming = True
        elif word == "[":
            keys.append(0)
            naming = False
        elif word in "}]":
            keys.pop()
            naming = False
        elif word == ",":
            if isinstance(keys[-1], int):
                keys[-1] += 1
            else:
                naming = True
        elif word == ":":
            naming = False
        elif not word[0].isspace():
            if naming:
                keys[-1] = orjson.loads(word.encode("latin-1"))
            else:
                yield word, tuple(keys)
                continue
        yield word, None


def _utf8(text: str) -> str:
    """Latin-1 decoded text as the UTF-8 it is, or as it stands."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text


def _is_text(pieces: list[Piece]) -> bool:
    return all(type(piece) is str for piece in pieces)


def _is_plain(pieces: tuple[Piece, ...]) -> bool:
    for piece in pieces:  # noqa: SIM110 (a generator would take longer than the loop: this is asked twice a request)
        if type(piece) is not bytes:
            return False
    return True


def _packed(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Neighbouring texts joined, as bytes."""
    packed: list[Piece] = []
    run: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            run.append(piece)
            continue
        if run:
            packed.append("".join(run).encode("latin-1"))
            run = []
        packed.append(piece)
    if run:
        packed.append("".join(run).encode("latin-1"))
    return tuple(piece for piece in packed if piece != b"")
