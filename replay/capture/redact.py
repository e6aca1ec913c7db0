"""Redaction: secrets leave, their shape and their equality stay.

A secret becomes a pseudonym drawn by HMAC-SHA256 from the secret itself: the same secret becomes the same
pseudonym wherever it stands (a token in a login's JSON, in the next request's header, in a query string), of
the same length and with the same kinds of characters in the same places, so that applications still parse it
and the correlation of later requests still works. Without the key a pseudonym says nothing about its secret.

Detectors find the secrets: callables of one signature in an ordered list. Bytes around a secret are never
touched, so a body keeps its formatting, and one without secrets is not even copied. A body in a
content-encoding is opened for the search, and closed again only where something was replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import brotli  # type: ignore[import-untyped]
import orjson
import zstandard

from replay.model import Exchange, Header

SECRET_NAMES = frozenset(
    {
        *(
            "accesskey",
            "apikey",
            "assertion",
            "authenticitytoken",
            "authorization",
            "awsaccesskeyid",
            "bearer",
        ),
        *(
            "clientsecret",
            "credential",
            "credentials",
            "csrf",
            "csrfmiddlewaretoken",
            "cvc",
            "cvv",
            "jsessionid",
        ),
        *(
            "jwt",
            "otp",
            "passcode",
            "passphrase",
            "passwd",
            "password",
            "phpsessid",
            "pin",
            "privatekey",
            "pwd",
        ),
        *("secret", "secretkey", "session", "sessionid", "sessionkey", "sid", "sig", "signature", "ssn"),
        *("subscriptionkey", "token", "verificationcode", "xsrf"),
    }
)
"""Names whose values are secrets: of parameters, JSON members, headers; lower case, without `-` and `_`."""

_SECRET_ENDINGS = ("token", "password", "passwd", "secret", "apikey", "secretkey", "sessionid", "privatekey")

SECRET_HEADERS = frozenset(
    {"x-amz-security-token", "x-csrftoken", "private-token", "x-session", "x-auth-key"}
)
"""Headers that hold secrets beside those whose name says so (see `SECRET_NAMES`): whole values."""

_URL_HEADERS = frozenset({"location", "content-location", "referer", "link", "refresh", "x-original-url"})
_OPAQUE_TYPES = (
    "image/",
    "audio/",
    "video/",
    "font/",
    "application/pdf",
    "application/zip",
    "application/wasm",
)
_LARGEST_DECODED = 64 << 20


@dataclass(frozen=True, slots=True)
class Policy:
    """What is redacted: the detectors by name, in order, and the names that mark a secret."""

    detectors: tuple[str, ...] = (
        "authorization",
        "cookies",
        "headers",
        "urls",
        "json",
        "forms",
        "multipart",
        "html",
        "echoes",
    )
    names: frozenset[str] = SECRET_NAMES
    headers: frozenset[str] = SECRET_HEADERS

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever what is redacted changes."""
        parts = (*self.detectors, "/", *sorted(self.names), "/", *sorted(self.headers))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Part:
    """One message as detectors see it: its target (empty for a response), headers, and body decoded."""

    target: str
    headers: list[Header]
    body: bytes | None

    def content_type(self) -> str:
        """The media type in lower case, or the empty string."""
        return _value(self.headers, "content-type").partition(";")[0].strip().lower()


class Secrets:
    """Knows a secret by its name, and what to put in its place."""

    def __init__(self, policy: Policy, key: bytes) -> None:
        self._names = policy.names
        self._headers = policy.headers
        self._stems = _stems({*policy.names, *_SECRET_ENDINGS})
        self.recent: dict[bytes, bytes] = {}
        self.pseudonym = lru_cache(maxsize=1 << 16)(lambda secret: pseudonym(secret, key))
        self.is_secret = lru_cache(maxsize=1 << 14)(self._is_secret)
        self.is_secret_header = lru_cache(maxsize=1 << 12)(self._is_secret_header)

    def _is_secret(self, name: str) -> bool:
        # `user[password]` and `login.password` are called by their last part.
        plain = re.split(r"[\[\].]+", name.rstrip("]").lower())[-1].replace("-", "").replace("_", "")
        return plain in self._names or plain.endswith(_SECRET_ENDINGS)

    def _is_secret_header(self, name: str) -> bool:
        lower = name.lower()
        return lower in self._headers or self._is_secret(lower.removeprefix("x-"))

    def may_be_in(self, body: bytes) -> bool:
        """Whether any secret name is in the body at all: a cheap look before the close one."""
        plain = body.lower().translate(None, b"-_")
        return any(stem in plain for stem in self._stems)

    def raw(self, data: bytes) -> bytes:
        """The pseudonym of a secret given as bytes: UTF-8, or else latin-1."""
        try:
            drawn = str(self.pseudonym(data.decode())).encode()
        except UnicodeDecodeError:
            drawn = str(self.pseudonym(data.decode("latin-1"))).encode("latin-1")
        if _is_telling(data):
            self.recent[data] = drawn
        return drawn

    def text(self, value: str) -> str:
        """The pseudonym of a secret in text from the wire (latin-1 decoded); spaces around it are kept."""
        core = value.strip()
        drawn = self.raw(core.encode("latin-1", "replace")).decode("latin-1")
        return value.replace(core, drawn) if core else value

    def escaped(self, value: str, *, plus: bool = False) -> str:
        """The pseudonym of a percent-encoded secret, escapes kept in their places.

        It is the pseudonym of what the escapes stand for, so the secret is the same one without them. `plus`
        reads `+` as a space, as forms and query strings do.
        """
        if "%" not in value and "+" not in value:
            return self.text(value)
        units = re.findall(r"%[0-9A-Fa-f]{2}|.", value, re.DOTALL)
        plain = unquote_to_bytes((value.replace("+", " ") if plus else value).encode("latin-1", "replace"))
        pairs = zip(units, self.raw(plain), strict=True)
        return "".join(_like_unit(unit, byte, plus) for unit, byte in pairs)


Detector = Callable[[Part, Secrets], int]
"""Replaces the secrets it finds in the part, and returns how many."""


class Redactor:
    """Applies a policy. `counts` tells how much each detector replaced."""

    def __init__(self, policy: Policy, key: bytes) -> None:
        self.policy = policy
        self.key_id = hmac.digest(key, b"key id", "sha256").hex()[:16]
        self.counts: Counter[str] = Counter()
        self._secrets = Secrets(policy, key)
        self._detectors = [(name, DETECTORS[name]) for name in policy.detectors]

    def exchange(self, exchange: Exchange) -> Exchange:
        """The exchange without its secrets."""
        self.begin()
        whole = not exchange.truncated
        target, request_headers, request_body = self.message(
            exchange.target, list(exchange.request_headers), exchange.request_body, whole=whole
        )
        _, response_headers, response_body = self.message(
            "", list(exchange.response_headers), exchange.response_body, whole=whole
        )
        return replace(
            exchange,
            target=target,
            request_headers=tuple(request_headers),
            request_body=request_body,
            response_headers=tuple(response_headers),
            response_body=response_body,
        )

    def begin(self) -> None:
        """Begin another exchange: its request comes first, then its response, which may echo its secrets."""
        self._secrets.recent.clear()

    def message(
        self, target: str, headers: list[Header], body: bytes | None, *, whole: bool = True
    ) -> tuple[str, list[Header], bytes | None]:
        """Target, headers and body without their secrets; `headers` is the caller's to give away.

        `whole` tells that the body is complete: only then its length is Content-Length. A body that claims a
        content-encoding and breaks within it cannot be searched, and is left out (`None`).
        """
        codings = _codings(headers)
        plain = _open(body, codings) if body and not _is_opaque(headers) else None
        if plain is not None and plain.broken:
            self.counts["unreadable bodies"] += 1
            return *self._search(Part(target, headers, None)), None
        part = Part(target, headers, plain.data if plain else None)
        target, headers = self._search(part)
        if plain is None or part.body is None:
            return target, headers, body
        # Of a cut body in a coding, only what could be opened was searched: only that is kept.
        if part.body is plain.data and (whole or not plain.codings):
            return target, headers, body
        closed = _close(part.body, plain)
        if whole and len(closed) != len(body or b""):
            headers = with_content_length(headers, len(closed))
        return target, headers, closed

    def _search(self, part: Part) -> tuple[str, list[Header]]:
        for name, detect in self._detectors:
            found = detect(part, self._secrets)
            if found:
                self.counts[name] += found
        return part.target, part.headers


def with_content_length(headers: Iterable[Header], length: int) -> list[Header]:
    """The headers with Content-Length, where there is one, saying `length`."""
    return [(n, str(length)) if n.lower() == "content-length" else (n, v) for n, v in headers]


def _stems(names: set[str]) -> tuple[bytes, ...]:
    """The names that hold no other one: where none of these is, none of the names is."""
    return tuple(name.encode() for name in names if not any(o != name and o in name for o in names))


# --- pseudonyms


def pseudonym(secret: str, key: bytes) -> str:
    """What stands for `secret`: digits for digits, capitals for capitals, hexadecimal for hexadecimal,
    everything that is not a letter or digit as it was; as many bytes in UTF-8 and in latin-1.

    The header of a JWT names an algorithm and is kept, so that the pseudonym is seen to be a JWT.
    """
    jwt = _JWT.match(secret)
    kept = jwt.end() if jwt else 0
    rest = secret[kept:]
    seed = hmac.digest(key, b"pseudonym\0" + secret.encode("utf-8", "surrogatepass"), "sha256")
    draws = memoryview(hashlib.shake_256(seed).digest(4 * len(rest))).cast("I")
    alphabets = _HEX_ALPHABETS if _is_hexadecimal(rest) else _ALPHABETS
    drawn = "".join(_draw(character, draw, alphabets) for character, draw in zip(rest, draws, strict=True))
    if rest[:1] in _LEADING and drawn[:1] == "0":
        # A number stays a number of as many digits.
        drawn = _LEADING[draws[0] % 9] + drawn[1:]
    return secret[:kept] + drawn


_JWT = re.compile(r"eyJ[\w-]+(?=\.[\w-]+\.[\w-]*$)", re.ASCII)
_LEADING = "123456789"
_DIGITS = "0123456789"
_SMALL = "abcdefghijklmnopqrstuvwxyz"
_ALPHABETS = (_DIGITS, _SMALL, _SMALL.upper())
_HEX_ALPHABETS = (_DIGITS, "abcdef", "ABCDEF")
# Code points of equal length in UTF-8 and, for the first, in latin-1.
_FOREIGN = ((0x80, 0x100, 0xE0, 0x20), (0x100, 0x800, 0x430, 0x20), (0x800, 0xD800, 0x4E00, 0x5000))
_ASTRAL = (0x20000, 0xA000)


def _is_hexadecimal(text: str) -> bool:
    letters = [character for character in text if character.isalnum()]
    return len(letters) >= 8 and all(character in "0123456789abcdefABCDEF" for character in letters)


def _draw(character: str, draw: int, alphabets: tuple[str, str, str]) -> str:
    code = ord(character)
    if code < 0x80:
        for alphabet, first, last in zip(alphabets, "0aA", "9zZ", strict=True):
            if first <= character <= last:
                return alphabet[draw % len(alphabet)]
        return character
    for low, high, base, size in _FOREIGN:
        if low <= code < high:
            return chr(base + draw % size)
    if 0xD800 <= code < 0x10000:
        return character if code < 0xE000 else chr(0x4E00 + draw % 0x5000)
    return chr(_ASTRAL[0] + draw % _ASTRAL[1])


def _like_unit(unit: str, byte: int, plus: bool) -> str:
    if len(unit) == 3:
        return f"%{byte:02X}" if unit[1:] == unit[1:].upper() else f"%{byte:02x}"
    return unit if plus and unit == "+" else chr(byte)


# --- detectors

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
    return _in_headers(part, lambda name: name in _AUTHORIZATION, lambda _, v: _credentials(v, secrets))


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
    return base64.b64encode(secrets.raw(user) + colon + secrets.raw(password)).decode()


def cookies(part: Part, secrets: Secrets) -> int:
    """The values in Cookie and Set-Cookie; names and attributes are kept."""

    def redacted(name: str, value: str) -> str:
        if name == "cookie":
            return ";".join(_cookie(pair, secrets) for pair in value.split(";"))
        pair, semicolon, attributes = value.partition(";")
        return _cookie(pair, secrets) + semicolon + attributes

    return _in_headers(part, lambda name: name in ("cookie", "set-cookie"), redacted)


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

    return _in_headers(part, is_secret, lambda _, value: secrets.text(value))


def urls(part: Part, secrets: Secrets) -> int:
    """Parameters with secret names in the target, and in headers that hold URLs (Location, Referer)."""
    target = _url(part.target, secrets)
    found = int(target != part.target)
    part.target = target
    return found + _in_headers(part, lambda name: name in _URL_HEADERS, lambda _, value: _url(value, secrets))


def json(part: Part, secrets: Secrets) -> int:
    """Strings and numbers under secret names, in JSON and wherever it is embedded."""
    return _in_body(part, _JSON_MEMBER, secrets, _json_member)


def forms(part: Part, secrets: Secrets) -> int:
    """Fields with secret names in urlencoded forms."""
    kind = part.content_type()
    if not part.body or not ("urlencoded" in kind or (not kind and _FORM.match(part.body))):
        return 0
    text = part.body.decode("latin-1")
    redacted = _parameters(text, secrets)
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
    "forms": forms,
    "multipart": multipart,
    "html": html,
    "echoes": echoes,
}


# --- what detectors share

_ALONE = rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])"


def _is_telling(secret: bytes) -> bool:
    """Whether a secret is told from ordinary words and numbers, so that it can be looked for anywhere."""
    plain = secret.isalpha() or secret.isdigit()
    return len(secret) >= (16 if plain else 8)


_JSON_MEMBER = re.compile(
    rb'"((?:[^"\\]|\\.){1,64}+)"(\s*+:\s*+)(?:"((?:[^"\\]++|\\.)*+)("?)|(-?\d[\d.eE+-]*+))', re.DOTALL
)
_FORM = re.compile(rb"[\w.%\[\]+-]{1,64}=")
_MULTIPART_FIELD = re.compile(
    rb'(Content-Disposition:[^\r\n]*?[; ]name="?([^"\r\n;]*)"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)'
    rb"(.*?)(?=\r\n--|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_HTML_ELEMENT = re.compile(rb"<(?:input|meta)\b[^>]{0,2000}>", re.IGNORECASE)
_HTML_NAME = re.compile(rb"""\bname\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_HTML_VALUE = re.compile(rb"""(\b(?:value|content)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)
_MATRIX = re.compile(r";([^=;/]+)=([^;/]*)")
_USER_INFO = re.compile(r"(//)([^/@\s?#]+)(?=@)")


def _in_headers(part: Part, wanted: Callable[[str], bool], redacted: Callable[[str, str], str]) -> int:
    found = 0
    for index, (name, value) in enumerate(part.headers):
        lower = name.lower()
        if value and wanted(lower):
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
    if not secrets.is_secret(_unescaped(name)):
        return found[0]
    if number is not None:
        return b'"%b"%b%b' % (name, colon, _number(number, secrets))
    return b'"%b"%b"%b%b' % (name, colon, _json_text(text, secrets), quote)


def _number(number: bytes, secrets: Secrets) -> bytes:
    sign, digits = (b"-", number[1:]) if number.startswith(b"-") else (b"", number)
    drawn = zip(digits, secrets.raw(digits), strict=True)
    return sign + bytes(new if chr(old).isdigit() else old for old, new in drawn)


def _json_text(text: bytes, secrets: Secrets) -> bytes:
    if b"\\" not in text:
        return secrets.raw(text)
    try:
        return orjson.dumps(secrets.pseudonym(orjson.loads(b'"%b"' % text)))[1:-1]
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
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
    return head + secrets.raw(value) if secrets.is_secret(name.decode("latin-1")) else found[0]


def _html_element(found: re.Match[bytes], secrets: Secrets) -> bytes:
    element = found[0]
    name = _HTML_NAME.search(element)
    if not name or not secrets.is_secret(name[1].decode("latin-1")):
        return element
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
    return path + question + _parameters(query, secrets) + hash_mark + _parameters(fragment, secrets)


def _user_info(text: str, secrets: Secrets) -> str:
    user, colon, password = text.partition(":")
    return secrets.escaped(user) + colon + secrets.escaped(password)


def _parameter(found: re.Match[str], secrets: Secrets) -> str:
    name, value = found.groups()
    return f";{name}={secrets.escaped(value)}" if secrets.is_secret(name) else str(found[0])


def _parameters(text: str, secrets: Secrets) -> str:
    if "=" not in text:
        return text
    return "&".join(_pair(pair, secrets) for pair in text.split("&"))


def _pair(pair: str, secrets: Secrets) -> str:
    name, equals, value = pair.partition("=")
    plain = unquote_to_bytes(name.encode("latin-1", "replace")).decode("latin-1") if "%" in name else name
    if value and secrets.is_secret(plain):
        return name + equals + secrets.escaped(value, plus=True)
    return pair


# --- content codings


@dataclass(frozen=True, slots=True)
class _Plain:
    """A body with its codings taken off: how to put them on again, and whether that was possible."""

    data: bytes
    codings: tuple[str, ...] = ()
    broken: bool = False


def _codings(headers: Sequence[Header]) -> tuple[str, ...]:
    values = [value for name, value in headers if name.lower() == "content-encoding"]
    names = (name.strip().lower().removeprefix("x-") for value in values for name in value.split(","))
    return tuple(name for name in names if name in ("gzip", "deflate", "br", "zstd"))


def _open(body: bytes, codings: tuple[str, ...]) -> _Plain:
    data = body
    used: list[str] = []
    for coding in reversed(codings):
        if coding == "deflate" and not _has_zlib_header(data):
            coding = "raw deflate"
        try:
            opened = _DECODERS[coding](data)
        except (zlib.error, brotli.error, zstandard.ZstdError, _TooLargeError):
            if used or _looks_like(data, coding):
                return _Plain(b"", broken=True)
            # The header names a coding that the body does not have: it is searched as it is.
            return _Plain(body)
        used.append(coding)
        data = opened
    return _Plain(data, tuple(reversed(used)))


class _TooLargeError(Exception):
    """A body that grows beyond reason as it is opened."""


def _inflated(data: bytes, window: int) -> bytes:
    """Inflated data, as far as a cut body goes; gzip may come in several members."""
    whole = bytearray()
    while data:
        decoder = zlib.decompressobj(window)
        whole += decoder.decompress(data, _LARGEST_DECODED)
        if decoder.unconsumed_tail or len(whole) > _LARGEST_DECODED:
            raise _TooLargeError
        data = decoder.unused_data if decoder.unused_data.startswith(b"\x1f\x8b") else b""
    return bytes(whole)


def _unbrotli(data: bytes) -> bytes:
    decoder = brotli.Decompressor()
    whole = bytearray()
    for start in range(0, len(data), 1024):
        whole += decoder.process(data[start : start + 1024])
        if len(whole) > _LARGEST_DECODED:
            raise _TooLargeError
    return bytes(whole)


def _unzstd(data: bytes) -> bytes:
    # Read by parts: what a cut body still holds comes out before the end is missed.
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data, read_across_frames=True)
    whole = bytearray()
    while part := reader.read(1 << 20):
        whole += part
        if len(whole) > _LARGEST_DECODED:
            raise _TooLargeError
    return bytes(whole)


def _looks_like(data: bytes, coding: str) -> bool:
    if coding == "gzip":
        return data.startswith(b"\x1f\x8b")
    if coding == "zstd":
        return data.startswith(b"\x28\xb5\x2f\xfd")
    # Neither brotli nor deflate has a mark: what is not text may be a damaged one.
    return any(byte < 9 or byte > 126 for byte in data[:64])


def _has_zlib_header(data: bytes) -> bool:
    return len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0


def _close(data: bytes, plain: _Plain) -> bytes:
    for coding in plain.codings:
        data = _ENCODERS[coding](data)
    return data


def _deflated(data: bytes, window: int) -> bytes:
    encoder = zlib.compressobj(6, zlib.DEFLATED, window)
    return encoder.compress(data) + encoder.flush()


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: _inflated(data, 31),
    "deflate": lambda data: _inflated(data, 15),
    "raw deflate": lambda data: _inflated(data, -15),
    "br": _unbrotli,
    "zstd": _unzstd,
}
_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: _deflated(data, 31),
    "deflate": lambda data: _deflated(data, 15),
    "raw deflate": lambda data: _deflated(data, -15),
    "br": lambda data: bytes(brotli.compress(data, quality=4)),
    "zstd": lambda data: zstandard.ZstdCompressor(level=3).compress(data),
}


def _is_opaque(headers: Sequence[Header]) -> bool:
    kind = _value(headers, "content-type").lower()
    return kind.startswith(_OPAQUE_TYPES) and "svg" not in kind


def _value(headers: Sequence[Header], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")
