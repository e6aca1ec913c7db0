"""Bytes become trees: what a client would have understood, so that only what it would notice differs.

A body is decoded (content-encoding, then charset) and handed to the first lifter in `LIFTERS` that takes it.
JSON is read by orjson, which is fast and forgives too much: it keeps the last of duplicate keys and turns
integers beyond 64 bits, and floats with more digits than a double holds, into rounded floats. Bodies where
that may have happened are read again by the standard library with exact numbers; `_is_faithful` says how
it is noticed. A body that will not parse becomes text, and the reason is kept.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson

from replay.codings import decode
from replay.model import Header


@dataclass(frozen=True, slots=True)
class Lifted:
    """A body as a tree.

    `form` names what it is (json, ndjson, form, html, xml, multipart, image, text, binary, empty). `canonical`
    is the tree written again where orjson can do so without loss: equal ones mean equal trees, unequal ones mean
    nothing, as keys may come in another order. `notes` say what could not be taken as it claimed to be. In trees
    a tuple holds the values of a key that came more than once.
    """

    form: str
    tree: Any
    canonical: bytes | None = None
    notes: tuple[str, ...] = ()


Lifter = Callable[[bytes, str, str], Lifted | None]
"""Decoded bytes, media type and charset → tree, or `None`: not mine."""


class NotLiftedError(ValueError):
    """A body is not what its headers claim; the text says why."""


def lift(body: bytes, headers: Sequence[Header], truncated: bool = False) -> Lifted:
    """The tree of a body. Never raises: what cannot be read as claimed is read as less, and noted."""
    kind, encodings = _claims(headers)
    notes: list[str] = ["cut at the capture's limit"] if truncated else []
    if encodings:
        body, reason = decode(body, encodings)
        notes += [reason] if reason else []
    media, charset = media_type(kind)
    for lifter in LIFTERS:
        try:
            lifted = lifter(body, media, charset)
        except (NotLiftedError, RecursionError) as reason:
            notes.append(str(reason))
            continue
        if lifted is not None:
            return Lifted(lifted.form, lifted.tree, lifted.canonical, tuple(notes)) if notes else lifted
    return _binary(body, notes)


def _claims(headers: Sequence[Header]) -> tuple[str, str]:
    kind = encodings = ""
    for name, value in headers:
        if len(name) == 12 and name.lower() == "content-type":
            kind = value
        elif len(name) == 16 and name.lower() == "content-encoding":
            encodings = f"{encodings},{value}" if encodings else value
    return kind, encodings


@lru_cache(maxsize=256)
def media_type(content_type: str) -> tuple[str, str]:
    """Media type in lower case and charset (empty: not said) of a Content-Type."""
    media, _, rest = content_type.partition(";")
    charset = ""
    for parameter in rest.split(";") if rest else ():
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset


# Lifters, in the order they are asked.


def _empty(body: bytes, media: str, charset: str) -> Lifted | None:
    return None if body else Lifted("empty", "")


def _json(body: bytes, media: str, charset: str) -> Lifted | None:
    claimed = media == "application/json" or media.endswith("+json") or media == "text/json"
    if not claimed and (media not in ("", "text/plain") or body[:1] not in (b"{", b"[")):
        return None
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        body = decode_text(body, charset).encode("utf-8", "replace")
    try:
        tree, canonical = parse_json(body)
    except NotLiftedError:
        if claimed:
            raise
        return None
    return Lifted("json", tree, canonical)


def _ndjson(body: bytes, media: str, charset: str) -> Lifted | None:
    if media not in (
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/json-seq",
    ):
        return None
    return Lifted(
        "ndjson", [parse_json(line)[0] for line in body.replace(b"\x1e", b"").splitlines() if line.strip()]
    )


def _form(body: bytes, media: str, charset: str) -> Lifted | None:
    if media != "application/x-www-form-urlencoded":
        return None
    pairs = parse_qsl(decode_text(body, charset or "utf-8"), keep_blank_values=True)
    return Lifted("form", _object(pairs))


def _text(body: bytes, media: str, charset: str) -> Lifted | None:
    textual = media.startswith("text/") or media.endswith(_TEXT_ENDINGS) or media == ""
    if not textual or (b"\0" in body[:1024] and not charset.startswith("utf-16")):
        return None
    return Lifted("text", decode_text(body, charset).splitlines())


_TEXT_ENDINGS = (
    "json",
    "xml",
    "javascript",
    "ndjson",
    "jsonl",
    "json-seq",
    "urlencoded",
    "yaml",
    "graphql",
    "csv",
)


def _markup(body: bytes, media: str, charset: str) -> Lifted | None:
    html = media in ("text/html", "application/xhtml+xml")
    if not html and media not in ("application/xml", "text/xml") and not media.endswith("+xml"):
        return None
    from replay.diff.markup import parse  # at first need: the parser's library takes a while to load

    try:
        return Lifted("html" if html else "xml", parse(body, html, charset))
    except ValueError as error:
        raise NotLiftedError(f"is not {'HTML' if html else 'XML'}: {str(error)[:80]}") from None


def _multipart(body: bytes, media: str, charset: str) -> Lifted | None:
    if not media.startswith("multipart/"):
        return None
    # The boundary is another one each time; it is what the first line says (RFC 2046, 5.1.1).
    line, _, rest = body.partition(b"\r\n")
    if not line.startswith(b"--") or len(line) > 72 or (b"\r\n" + line + b"--") not in body:
        raise NotLiftedError("is not multipart: no boundary begins and ends it")
    inside = rest.partition(b"\r\n" + line + b"--")[0]
    return Lifted("multipart", [_part(part) for part in inside.split(b"\r\n" + line + b"\r\n")])


def _part(part: bytes) -> dict[str, Any]:
    head, _, body = (b"\r\n" + part).partition(b"\r\n\r\n")
    headers = []
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip(), value.strip()))
    names = sorted((name.lower(), value) for name, value in headers)
    return {"headers": _object(names), "body": lift(body, headers).tree}


def _image(body: bytes, media: str, charset: str) -> Lifted | None:
    if not media.startswith("image/") or media.endswith("+xml"):
        return None
    import imagesize

    width, height = imagesize.get(io.BytesIO(body))
    return Lifted("image", {"type": media, "width": width, "height": height, "content": _digest(body)})


# Those before `_text` are texts too, or may be.
LIFTERS: tuple[Lifter, ...] = (_empty, _json, _ndjson, _form, _markup, _multipart, _image, _text)
"""The explicit order: the first that takes a body decides; what none takes is compared by hash and size."""


def _binary(body: bytes, notes: Iterable[str]) -> Lifted:
    return Lifted("binary", _digest(body), None, tuple(notes))


def _digest(body: bytes) -> str:
    return f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()[:16]}"


def decode_text(body: bytes, charset: str) -> str:
    """Text by its charset, UTF-8 if none or unknown; bytes that are not stay visible as escapes."""
    try:
        return body.decode(charset or "utf-8-sig", "backslashreplace")
    except (LookupError, ValueError):  # a charset that nobody knows, or no name at all
        return body.decode("utf-8", "backslashreplace")


# JSON.

_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 16


def parse_json(body: bytes) -> tuple[Any, bytes | None]:
    """The tree of a JSON text, and its canonical form where numbers and keys are plain.

    Raises `NotLiftedError` where it does not parse.
    """
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_exactly(body), None
    canonical = orjson.dumps(tree)
    if canonical == body or _is_faithful(body, canonical):
        return tree, canonical
    return _parse_exactly(body), None


def _is_faithful(body: bytes, canonical: bytes) -> bool:
    """Whether orjson can have lost nothing: no digit run that may exceed a double, and no key twice.

    A key is a quote and a colon. The canonical form holds each distinct key once and every text as it was,
    so a body with more of them may have had a duplicate. A blank before a colon, or a quote written as an
    escape, would be counted on one side only: their presence is doubt enough.
    """
    if _LONG_NUMBER in body.translate(_DIGITS) or b"\\u0022" in body:
        return False
    if b" :" in body or b"\n:" in body or b"\t:" in body or b"\r:" in body:
        return False
    return body.count(b'":') == canonical.count(b'":')


def _parse_exactly(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_object, parse_float=_exact_float)
    except RecursionError:
        raise NotLiftedError("is JSON nested too deeply to read") from None
    except ValueError as error:
        raise NotLiftedError(f"is not JSON: {str(error)[:80]}") from None


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    twice: set[str] = set()
    for key, value in pairs:
        if key not in found:
            found[key] = value
        elif key in twice:
            found[key] = (*found[key], value)
        else:
            twice.add(key)
            found[key] = (found[key], value)
    return found


def _exact_float(text: str) -> float | Decimal:
    """A double where it says all the text said, else a decimal: 0.10000000000000000001 is not 0.1."""
    rounded = float(text)
    if len(text) < 17:
        return rounded
    try:
        exact = Decimal(text)
        return rounded if exact == Decimal(repr(rounded)) else exact
    except InvalidOperation:
        return rounded
