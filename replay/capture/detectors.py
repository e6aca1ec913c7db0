"""Detectors: each finds one sort of secret in a message and replaces it where it stands.

Callables of one signature in an explicit, ordered list: first those that know a secret by its place or name,
then those that know it by its form (`replay.capture.shapes`), at last the echoes of what was found. Bytes
around a secret are never touched, so a body keeps its formatting.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache, partial
from urllib.parse import unquote_to_bytes

import orjson

from replay.capture.parts import Part, Secrets, within_escapes
from replay.capture.shapes import SHAPES, Shape

Detector = Callable[[Part, Secrets], int]
"""Replaces the secrets it finds in the part, and returns how many."""

_URL_HEADERS = frozenset({"location", "content-location", "referer", "link", "refresh", "x-original-url"})
_AUTHORIZATION = frozenset(
    {"authorization", "proxy-authorization", "x-authorization", "x-forwarded-authorization"}
)
_SCHEME = re.compile(r"(\s*[A-Za-z][A-Za-z0-9-]*\s+)(.*)", re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*")
_AUTH_PARAMETER = re.compile(r'([A-Za-z0-9_-]+\s*=\s*)("(?:[^"\\]|\\.)*"?|[^,\s]+)')
_PLAIN_PARAMETERS = frozenset(
    {"realm", "algorithm", "qop", "uri", "nc", "charset", "userhash", "signedheaders"}
)


def authorization(part: Part, secrets: Secrets) -> int:
    """Credentials in Authorization and its kin; the scheme is kept."""
    return _in_headers(
        part, secrets, lambda name: name in _AUTHORIZATION, lambda _, v: _credentials(v, secrets)
    )


def _credentials(value: str, secrets: Secrets) -> str:
    match = _SCHEME.fullmatch(value)
    if not match:
        return secrets.text(value)
    scheme, rest = match.groups()
    if scheme.strip().lower() == "basic":
        return scheme + _basic(rest, secrets)
    if _TOKEN68.fullmatch(rest) or not _AUTH_PARAMETER.search(rest):
        return scheme + secrets.text(rest)
    return scheme + _AUTH_PARAMETER.sub(lambda found: _auth_parameter(found, secrets), rest)


def _auth_parameter(found: re.Match[str], secrets: Secrets) -> str:
    name, value = found.groups()
    if name.split("=")[0].strip().lower() in _PLAIN_PARAMETERS:
        return str(found[0])
    if value.startswith('"'):
        return name + '"' + secrets.text(value[1:].removesuffix('"')) + '"' * value.endswith('"')
    return str(name + secrets.text(value))


def _basic(encoded: str, secrets: Secrets) -> str:
    # Name and password each by themselves, so that a login form's password gets the same pseudonym.
    try:
        plain = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return secrets.text(encoded)
    user, colon, password = plain.partition(b":")
    drawn = base64.b64encode(secrets.raw(user) + colon + secrets.raw(password)).decode()
    secrets.remember(encoded.strip(), drawn)
    return drawn


def cookies(part: Part, secrets: Secrets) -> int:
    """The values in Cookie and Set-Cookie; names and attributes are kept."""

    def redacted(name: str, value: str) -> str:
        if name == "cookie":
            return ";".join(_cookie(pair, secrets) for pair in value.split(";"))
        pair, semicolon, attributes = value.partition(";")
        return _cookie(pair, secrets) + semicolon + attributes

    return _in_headers(part, secrets, lambda name: name in ("cookie", "set-cookie"), redacted)


def _cookie(pair: str, secrets: Secrets) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return secrets.escaped(pair)
    core = value.strip().strip('"')
    return name + equals + value.replace(core, secrets.escaped(core)) if core else pair


def headers(part: Part, secrets: Secrets) -> int:
    """Whole values of headers whose names say API key, token, secret and the like."""

    def is_secret(name: str) -> bool:
        return name not in _AUTHORIZATION and secrets.is_secret_header(name)

    return _in_headers(part, secrets, is_secret, lambda _, value: secrets.text(value))


def urls(part: Part, secrets: Secrets) -> int:
    """Parameters with secret names in the target, and in headers that hold URLs (Location, Referer)."""
    secrets.place = "target"
    target = _url(part.target, secrets)
    found = int(target != part.target)
    part.target = target
    return found + _in_headers(
        part, secrets, lambda name: name in _URL_HEADERS, lambda _, value: _url(value, secrets)
    )


def json(part: Part, secrets: Secrets) -> int:
    """Strings, numbers and lists of strings under secret names, in JSON and wherever it is embedded."""
    if not part.body or not secrets.may_be_in(part.body):
        return 0
    return _in_body(part, _JSON_MEMBER, secrets, _json_member) + _in_body(
        part, _JSON_LIST, secrets, _json_list
    )


def nested(part: Part, secrets: Secrets) -> int:
    """JSON strings that escapes hide from the others: JSON within JSON, and escaped signs in an address."""
    body = part.body
    if not body or (b'\\"' not in body and b"\\u00" not in body) or not part.is_json():
        return 0
    found = 0

    def each(match: re.Match[bytes]) -> bytes:
        nonlocal found
        if b'\\"' not in match[0] and b"\\u00" not in match[0]:
            return match[0]
        new = _nested(match[0], secrets)
        found += new != match[0]
        return new

    part.body = _JSON_STRING.sub(each, body)
    return found


def _nested(text: bytes, secrets: Secrets) -> bytes:
    try:
        plain: bytes = orjson.loads(text).encode()
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return text
    inner = Part("", [], plain)
    if inner.is_json():
        json(inner, secrets)
        nested(inner, secrets)
    for shape in SHAPES.values():
        if shape.name in secrets.shapes:
            inner.body = _without(shape, inner.body or b"", secrets)
    return text if inner.body == plain else orjson.dumps((inner.body or b"").decode())


def forms(part: Part, secrets: Secrets) -> int:
    """Fields with secret names in urlencoded forms."""
    if not part.body or not part.is_form():
        return 0
    text = part.body.decode("latin-1")
    redacted = _parameters(text, secrets, "body")
    if redacted == text:
        return 0
    part.body = redacted.encode("latin-1")
    return 1


def multipart(part: Part, secrets: Secrets) -> int:
    """Fields with secret names in multipart forms."""
    if not part.content_type().startswith("multipart/"):
        return 0
    return _in_body(part, _MULTIPART_FIELD, secrets, _named_value)


def html(part: Part, secrets: Secrets) -> int:
    """Hidden inputs and meta elements with secret names: the form's token is the one posted next."""
    return _in_body(part, _HTML_ELEMENT, secrets, _html_element)


def text(part: Part, secrets: Secrets) -> int:
    """Secrets by name in plain text and logs (`password: x`) and in XML (`<password>x</password>`)."""
    kind = part.content_type()
    if kind.endswith("xml") or kind == "text/html":
        return _in_body(part, _XML_ELEMENT, secrets, _named_value)
    if kind == "text/plain" or (not kind and not part.is_form() and not part.is_json()):
        return _in_text_pairs(part, secrets)
    return 0


def _in_text_pairs(part: Part, secrets: Secrets) -> int:
    # Name by name, for what looks like a name's value may itself be a name: `failed: password=x`.
    text, at, found = part.body or b"", 0, 0
    if not secrets.may_be_in(text):
        return 0
    while name := _TEXT_NAME.search(text, at):
        at = name.end()
        value = _TEXT_VALUE.match(text, at)
        plain = name[1].decode("latin-1")
        if value and secrets.holds(plain, value[0].decode("latin-1")):
            secrets.place = f"body {plain}"
            new = secrets.raw(value[0])
            text = text[:at] + new + text[value.end() :]
            at, found = at + len(new), found + 1
    part.body = text if found else part.body
    return found


def by_shape(part: Part, secrets: Secrets, shape: Shape) -> int:
    """Secrets of one shape, in the target, in headers and in the body, percent-encoded or not."""
    before = len(secrets.found)
    secrets.place = "target"
    if part.target and _shows(shape.name, part.target):
        part.target = _in_text(shape, part.target, secrets)
    for index, (name, value) in enumerate(part.headers):
        if _shows(shape.name, value) and name.lower() not in _NEVER:
            secrets.place = f"header {name.lower()}"
            part.headers[index] = (name, _in_text(shape, value, secrets))
    secrets.place = "body"
    if part.body:
        if part.is_form():
            part.body = _in_text(shape, part.body.decode("latin-1"), secrets, "body").encode("latin-1")
        else:
            part.body = _without(shape, part.body, secrets)
            if b"%" in part.body and _ESCAPE.search(part.body):
                part.body = _RUN.sub(lambda run: _in_run(shape, run[0], secrets), part.body)
    return len(secrets.found) - before


def _in_run(shape: Shape, run: bytes, secrets: Secrets) -> bytes:
    """A percent-encoded stretch of a body: an URL in JSON, a link in HTML."""
    return _in_text(shape, run.decode("latin-1"), secrets).encode("latin-1") if b"%" in run else run


@lru_cache(maxsize=1 << 15)
def _shows(shape: str, value: str) -> bool:
    """Whether the shape may stand in the value: headers say the same over and over."""
    raw = value.encode("latin-1", "replace")
    return any(next(SHAPES[shape].find(text), None) for text in {raw, unquote_to_bytes(raw)})


def _in_text(shape: Shape, value: str, secrets: Secrets, place: str = "") -> str:
    if place:
        secrets.place = place
    if "%" in value:
        if next(shape.find(unquote_to_bytes(value.encode("latin-1", "replace"))), None) is None:
            return value
        return within_escapes(value, lambda plain: _without(shape, plain, secrets))
    return _without(shape, value.encode("latin-1", "replace"), secrets).decode("latin-1")


def _without(shape: Shape, text: bytes, secrets: Secrets) -> bytes:
    parts, end = [], 0
    body = secrets.place.startswith("body") or not secrets.place
    for found in shape.find(text):
        if body:
            secrets.place = _body_place(text, found.start())
        # The letter of an escape (`\\n` in JSON) is not of what follows it.
        start = found.start() + (text[found.start() - 1 : found.start()] == b"\\")
        parts += [text[end:start], secrets.shape(text[start : found.end()])]
        end = found.end()
    return b"".join((*parts, text[end:])) if parts else text


def _body_place(text: bytes, at: int) -> str:
    """The nearest JSON name or form field before the place."""
    name = _NEAREST.search(text, max(0, at - 200), at)
    return f"body {(name[1] or name[2]).decode('latin-1')}" if name else "body"


def echoes(part: Part, secrets: Secrets) -> int:
    """Secrets found elsewhere in the exchange, wherever they stand now: error pages and debug answers."""
    found = 0
    for secret, drawn in secrets.recent.items():
        text = secret.decode("latin-1")
        if part.body and secret in part.body:
            part.body, count = re.subn(_ALONE % re.escape(secret), drawn.replace(b"\\", rb"\\"), part.body)
            found += count
        if text in part.target:
            part.target = part.target.replace(text, drawn.decode("latin-1"))
            found += 1
        for index, (name, value) in enumerate(part.headers):
            if text in value:
                part.headers[index] = (name, value.replace(text, drawn.decode("latin-1")))
                found += 1
    return found


DETECTORS: dict[str, Detector] = {
    "authorization": authorization,
    "cookies": cookies,
    "headers": headers,
    "urls": urls,
    "json": json,
    "nested": nested,
    "forms": forms,
    "multipart": multipart,
    "html": html,
    "text": text,
    **{name: partial(by_shape, shape=shape) for name, shape in SHAPES.items()},
    "echoes": echoes,
}


# --- what detectors share

_ALONE = rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])"


_JSON_MEMBER = re.compile(
    rb'"((?:[^"\\]|\\.){1,64}+)"(\s*+:\s*+)(?:"((?:[^"\\]++|\\.)*+)("?)|(-?\d[\d.eE+-]*+))', re.DOTALL
)
_JSON_LIST = re.compile(
    rb'"((?:[^"\\]|\\.){1,64}+)"(\s*+:\s*+\[)((?:\s*+"(?:[^"\\]++|\\.)*+"\s*+,?)++)(?=\]|\Z)'
)
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TEXT_NAME = re.compile(rb"(?<![\w-])([\w-]{3,40}+)[ \t]{0,4}[:=][ \t]{0,4}[\"']?")
_TEXT_VALUE = re.compile(rb"[^\s\"'&,;<>]{3,}")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_RUN = re.compile(rb"[^\s\"'<>\\]++")
_XML_ELEMENT = re.compile(rb"(<(?:[\w-]+:)?([\w-]{1,64})(?:\s[^<>]*)?>)([^<>]+)(?=</)")
_NEAREST = re.compile(rb'(?:"([\w.-]{1,64})"\s*:\s*\[?\s*"?|(?:[?&]|\A)([\w.-]{1,64})=)[^":&]*\Z')
_NEVER = frozenset({"host", "date", "last-modified", "expires", "content-length", "content-type", "etag"})
_MULTIPART_FIELD = re.compile(
    rb'((?:(?<=\n)|\A)Content-Disposition:(?>[^\r\n]*?[; ]name="?)([^"\r\n;]*+)"?+'
    rb"[^\r\n]*+\r\n(?:[^\r\n]++\r\n){0,20}+\r\n)"
    rb"(.*?)(?=\r\n--|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_HTML_ELEMENT = re.compile(rb"<(?:input|meta)\b[^>]{0,2000}>", re.IGNORECASE)
_HTML_NAME = re.compile(rb"""\bname\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_HTML_VALUE = re.compile(rb"""(\b(?:value|content)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)
_MATRIX = re.compile(r";([^=;/]+)=([^;/]*)")
_USER_INFO = re.compile(r"(//)([^/@\s?#]+)(?=@)")


def _in_headers(
    part: Part, secrets: Secrets, wanted: Callable[[str], bool], redacted: Callable[[str, str], str]
) -> int:
    found = 0
    for index, (name, value) in enumerate(part.headers):
        lower = name.lower()
        if value and wanted(lower):
            secrets.place = f"header {lower}"
            new = redacted(lower, value)
            if new != value:
                part.headers[index] = (name, new)
                found += 1
    return found


def _in_body(
    part: Part,
    pattern: re.Pattern[bytes],
    secrets: Secrets,
    redacted: Callable[[re.Match[bytes], Secrets], bytes],
) -> int:
    if not part.body or not secrets.may_be_in(part.body):
        return 0
    found = 0

    def each(match: re.Match[bytes]) -> bytes:
        nonlocal found
        new = redacted(match, secrets)
        found += new != match[0]
        return new

    body = pattern.sub(each, part.body)
    if found:
        part.body = body
    return found


def _json_member(found: re.Match[bytes], secrets: Secrets) -> bytes:
    name, colon, text, quote, number = found.groups()
    plain = _unescaped(name)
    if not secrets.holds(plain, (number if number is not None else text).decode("latin-1")):
        return found[0]
    secrets.place = f"body {plain}"
    if number is not None:
        return b'"%b"%b%b' % (name, colon, _number(number, secrets))
    return b'"%b"%b"%b%b' % (name, colon, _json_text(text, secrets), quote)


def _json_list(found: re.Match[bytes], secrets: Secrets) -> bytes:
    name, opening, items = found.groups()
    plain = _unescaped(name)
    if not secrets.holds(plain, "a list"):
        return found[0]
    secrets.place = f"body {plain}"
    hidden = _JSON_STRING.sub(lambda item: b'"%b"' % _json_text(item[0][1:-1], secrets), items)
    return b'"%b"%b%b' % (name, opening, hidden)


def _number(number: bytes, secrets: Secrets) -> bytes:
    sign, digits = (b"-", number[1:]) if number.startswith(b"-") else (b"", number)
    drawn = zip(digits, secrets.raw(digits), strict=True)
    return sign + bytes(new if chr(old).isdigit() else old for old, new in drawn)


def _json_text(text: bytes, secrets: Secrets) -> bytes:
    if b"\\" not in text:
        return secrets.raw(text)
    try:
        return orjson.dumps(secrets.raw(orjson.loads(b'"%b"' % text).encode()).decode())[1:-1]
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return secrets.raw(text)


def _unescaped(name: bytes) -> str:
    if b"\\" in name:
        try:
            return str(orjson.loads(b'"%b"' % name))
        except orjson.JSONDecodeError:
            pass
    return name.decode("latin-1")


def _named_value(found: re.Match[bytes], secrets: Secrets) -> bytes:
    head, name, value = found.groups()
    plain = name.decode("latin-1")
    if not secrets.holds(plain, value.decode("latin-1")):
        return found[0]
    secrets.place = f"body {plain}"
    return head + secrets.raw(value)


def _html_element(found: re.Match[bytes], secrets: Secrets) -> bytes:
    element = found[0]
    name = _HTML_NAME.search(element)
    if not name or not secrets.is_secret(name[1].decode("latin-1")):
        return element
    secrets.place = f"body {name[1].decode('latin-1')}"
    return _HTML_VALUE.sub(lambda value: value[1] + _quoted(value[2], secrets), element)


def _quoted(value: bytes, secrets: Secrets) -> bytes:
    if value[:1] in (b'"', b"'"):
        return value[:1] + secrets.raw(value[1:-1]) + value[-1:]
    return secrets.raw(value)


def _url(url: str, secrets: Secrets) -> str:
    if "=" not in url and "@" not in url:
        return url
    rest, hash_mark, fragment = url.partition("#")
    path, question, query = rest.partition("?")
    if ";" in path:
        path = _MATRIX.sub(lambda found: _parameter(found, secrets), path)
    if "@" in path:
        path = _USER_INFO.sub(lambda found: found[1] + _user_info(found[2], secrets), path)
    where = secrets.place
    query = _parameters(query, secrets, where)
    return path + question + query + hash_mark + _parameters(fragment, secrets, where)


def _user_info(text: str, secrets: Secrets) -> str:
    user, colon, password = text.partition(":")
    return secrets.escaped(user) + colon + secrets.escaped(password)


def _parameter(found: re.Match[str], secrets: Secrets) -> str:
    name, value = found.groups()
    return f";{name}={secrets.escaped(value)}" if secrets.is_secret(name) else str(found[0])


def _parameters(text: str, secrets: Secrets, where: str) -> str:
    if "=" not in text:
        return text
    return "&".join(_pair(pair, secrets, where) for pair in text.split("&"))


def _pair(pair: str, secrets: Secrets, where: str) -> str:
    name, equals, value = pair.partition("=")
    plain = unquote_to_bytes(name.encode("latin-1", "replace")).decode("latin-1") if "%" in name else name
    if value and secrets.holds(plain, value):
        secrets.place = f"{where} {plain}"
        return name + equals + secrets.escaped(value, plus=True)
    return pair
