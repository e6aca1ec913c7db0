"""What detectors and rules work on: one message in parts, and the secrets drawn for one exchange."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from replay.capture.pseudonyms import masked, pseudonym
from replay.model import Header

SECRET_ENDINGS = ("token", "password", "passwd", "secret", "apikey", "secretkey", "sessionid", "privatekey")
PHONE_ENDINGS = ("phone", "mobile", "phonenumber", "mobilenumber", "msisdn", "telephone")


@dataclass(slots=True)
class Part:
    """One message as detectors see it: its target (empty for a response), headers, and body decoded."""

    target: str
    headers: list[Header]
    body: bytes | None

    def content_type(self) -> str:
        """The media type in lower case, or the empty string."""
        value = next((value for key, value in self.headers if key.lower() == "content-type"), "")
        return value.partition(";")[0].strip().lower()

    def is_form(self) -> bool:
        """Whether the body is an urlencoded form, by its type or, without one, by its look."""
        kind = self.content_type()
        return bool(self.body) and (
            "urlencoded" in kind or (not kind and bool(_FORM.match(self.body or b"")))
        )

    def is_json(self) -> bool:
        """Whether the body is JSON, by its type or by its look."""
        return bool(self.body) and (
            "json" in self.content_type() or (self.body or b"").lstrip()[:1] in (b"{", b"[")
        )


_FORM = re.compile(rb"[\w.%\[\]+-]{1,64}=")


class Secrets:
    """Knows a secret by its name, and what to put in its place; remembers what it drew for this exchange.

    `detector` and `place` tell who is asking and where; `found` collects them with every secret. `actions`
    says what to do with a detector's finds where that is not a pseudonym.
    """

    def __init__(
        self,
        names: frozenset[str],
        headers: frozenset[str],
        key: bytes,
        actions: Mapping[str, str],
        detectors: frozenset[str],
    ) -> None:
        self.shapes = detectors
        self._names = names
        self._headers = headers
        self._actions = actions
        self._stems = _stems({*names, *SECRET_ENDINGS, *PHONE_ENDINGS})
        self.recent: dict[bytes, bytes] = {}
        self.drawn: set[bytes] = set()
        self.kept: set[bytes] = set()
        self.found: list[tuple[str, str]] = []
        self._looked_at = b""
        self._seen_in_it = False
        self.detector = ""
        self.place = ""
        self.pseudonym = lru_cache(maxsize=1 << 16)(lambda secret: pseudonym(secret, key))
        self.is_secret = lru_cache(maxsize=1 << 14)(self._is_secret)
        self.is_secret_header = lru_cache(maxsize=1 << 12)(self._is_secret_header)

    def begin(self) -> None:
        """Forget the exchange before."""
        self.recent.clear()
        self.drawn.clear()
        self.kept.clear()
        self.found.clear()
        self._looked_at, self._seen_in_it = b"", False

    def _is_secret(self, name: str, value_is_text: bool = False) -> bool:
        plain = _plain(name)
        if plain in self._names or plain.endswith(SECRET_ENDINGS):
            return True
        # `tokens: 3` is a count, `tokens: "a,b"` and `tokens: [...]` are secrets.
        return value_is_text and plain.endswith("s") and self._is_secret(plain[:-1])

    def _is_secret_header(self, name: str) -> bool:
        lower = name.lower()
        return lower in self._headers or self._is_secret(lower.removeprefix("x-"))

    def holds(self, name: str, value: str) -> bool:
        """Whether a field is a secret: by its name, and where the name is not enough by its value."""
        if self.is_secret(name) or (not value.isdigit() and self.is_secret(name, True)):
            return True
        return _plain(name).endswith(PHONE_ENDINGS) and sum(map(str.isdigit, value)) >= 7

    def may_be_in(self, body: bytes) -> bool:
        """Whether any secret name is in the body at all: a cheap look before the close one."""
        if body is not self._looked_at:
            plain = body.lower().translate(None, b"-_")
            self._looked_at, self._seen_in_it = body, any(stem in plain for stem in self._stems)
        return self._seen_in_it

    def raw(self, data: bytes) -> bytes:
        """What stands for a secret given as bytes: UTF-8, or else latin-1."""
        if data in self.kept or not data:
            return data
        self.found.append((self.detector, self.place))
        drawn = self._draw(data)
        self.drawn.add(drawn)
        if is_telling(data):
            self.recent[data] = drawn
        return drawn

    def _draw(self, data: bytes) -> bytes:
        if self._actions.get(self.detector) == "mask":
            return masked(data.decode("latin-1")).encode("latin-1")
        try:
            return self.pseudonym(data.decode()).encode()
        except UnicodeDecodeError:
            return self.pseudonym(data.decode("latin-1")).encode("latin-1")

    def shape(self, data: bytes) -> bytes:
        """What stands for a secret that was found by its form, unless we ourselves put it there."""
        if data in self.drawn or any(data in kept for kept in self.kept):
            return data
        return self.raw(data)

    def text(self, value: str) -> str:
        """What stands for a secret in text from the wire (latin-1 decoded); spaces around it are kept."""
        core = value.strip()
        if not core:
            return value
        return value.replace(core, self.raw(core.encode("latin-1", "replace")).decode("latin-1"))

    def escaped(self, value: str, *, plus: bool = False) -> str:
        """What stands for a percent-encoded secret, escapes kept in their places.

        It is the pseudonym of what the escapes stand for, so the secret is the same one without them. `plus`
        reads `+` as a space, as forms and query strings do.
        """
        if "%" not in value and "+" not in value:
            return self.text(value)
        new = within_escapes(value, self.raw, plus=plus)
        self.remember(value, new)
        return new

    def remember(self, encoded: str, drawn: str) -> None:
        """An encoded form of a secret, to be found where it is echoed as it was sent."""
        secret = encoded.encode("latin-1", "replace")
        if encoded != drawn and is_telling(secret):
            self.recent[secret] = drawn.encode("latin-1", "replace")


def within_escapes(value: str, replaced: Callable[[bytes], bytes], *, plus: bool = False) -> str:
    """Percent-encoded text with its meaning `replaced` by as many bytes, escapes kept in their places."""
    units = re.findall(r"%[0-9A-Fa-f]{2}|.", value, re.DOTALL)
    plain = unquote_to_bytes((value.replace("+", " ") if plus else value).encode("latin-1", "replace"))
    pairs = zip(units, replaced(plain), strict=True)
    return "".join(_like_unit(unit, byte, plus) for unit, byte in pairs)


def is_telling(secret: bytes) -> bool:
    """Whether a secret is told from ordinary words and numbers, so that it can be looked for anywhere."""
    plain = secret.isalpha() or secret.isdigit()
    return len(secret) >= (16 if plain else 8)


@lru_cache(maxsize=1 << 14)
def _plain(name: str) -> str:
    # `user[password]`, `user[passwords][0]` and `login.password` are called by their last word.
    words = [word for word in re.split(r"[\[\].]+", name.lower()) if word and not word.isdigit()]
    return words[-1].replace("-", "").replace("_", "") if words else ""


def _stems(names: set[str]) -> tuple[bytes, ...]:
    """The names that hold no other one: where none of these is, none of the names is."""
    return tuple(name.encode() for name in names if not any(o != name and o in name for o in names))


def _like_unit(unit: str, byte: int, plus: bool) -> str:
    if len(unit) == 3:
        return f"%{byte:02X}" if unit[1:] == unit[1:].upper() else f"%{byte:02x}"
    return unit if plus and unit == "+" else chr(byte)
