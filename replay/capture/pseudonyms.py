"""Pseudonyms: what stands for a secret, keyed, equal for equal secrets, of the same shape and length.

Every letter and digit is drawn anew from HMAC-SHA256 of the secret: digits for digits, capitals for capitals,
hexadecimal for hexadecimal; everything else stays where it was. What has a grammar keeps it: a card stays
valid by Luhn and of its brand, an IBAN by its check digits, an e-mail address becomes one under a reserved
domain (RFC 2606), a JWT keeps three parts with JSON in the first two.

Short secrets (at most 2^32 of their kind) are permuted, not drawn: two PINs never share a pseudonym. Longer
ones carry a mark, one or two last characters that are a checksum of the others. It needs no key and says
nothing of the secret, but tells a pseudonym from a secret that was left (`is_marked`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence

import orjson

from replay.capture.shapes import API_KEY_PREFIX, iban_remainder, luhn_sum, shape_of

_SHORT = 1 << 32
_DRAWN = 1024
_DIGITS = "0123456789"
_SMALL = "abcdefghijklmnopqrstuvwxyz"
_PLAIN = (_DIGITS, _SMALL, _SMALL.upper())
_HEXADECIMAL = (_DIGITS, "abcdef", "ABCDEF")
_FLAT = str.maketrans({c: new for cs, new in zip(_PLAIN, "0xX", strict=True) for c in cs})
_KINDS = tuple(zip("0aA", "9zZ", strict=True))
# Code points of equal length in UTF-8 and, for the first, in latin-1.
_FOREIGN = (
    (0x80, 0x100, range(0xE0, 0x100)),
    (0x100, 0x800, range(0x430, 0x450)),
    (0x800, 0xD800, range(0x4E00, 0x9E00)),
    (0xE000, 0x10000, range(0x4E00, 0x9E00)),
    (0x10000, 0x110000, range(0x20000, 0x2A000)),
)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
Choices = Sequence[str] | range


def pseudonym(secret: str, key: bytes) -> str:
    """What stands for `secret`: as many bytes in UTF-8 and in latin-1, the same shape."""
    special = _SPECIAL.get(_shape(secret))
    return special(secret, key) if special else _drawn(secret, key)


def masked(secret: str) -> str:
    """The secret with every letter and digit hidden, for rules that ask for it."""
    return "".join("*" if character.isalnum() else character for character in secret)


def is_marked(value: str) -> bool | None:
    """Whether `value` is a pseudonym; `None` where it is too short, or of a form, to tell."""
    shape = _shape(value)
    if shape == "email":
        return value.lower().endswith((".test", ".zz"))
    if shape == "jwt":
        body, signature = value.split(".")[1:]
        told = _is_marked(signature)
        return _is_marked(body) if told is None and _claims(body) is None else told
    if shape == "card":
        return _is_marked(_alone(value)[2:-1])
    if shape == "iban":
        return _is_marked(_alone(value)[4:])
    if shape == "phone":
        return _is_marked(_alone(value)[2 * value.startswith("+") :])
    if shape == "api_keys":
        found = API_KEY_PREFIX.match(value.encode())
        return _is_marked(value[found.end() if found else 0 :])
    if shape == "private_keys":
        return _is_marked(_pem(value)[1])
    if shape == "url_credentials":
        return is_marked(value.partition(":")[2])
    return None if shape == "ip" else _is_marked(value)


def _shape(text: str) -> str:
    return shape_of(text.encode()) if len(text) > 5 and text.isascii() else ""


# --- the general case


def _drawn(text: str, key: bytes, seed: str | None = None) -> str:
    if len(text) > _DRAWN and text[_DRAWN:].isascii():
        # The beginning tells long secrets apart; drawing a megabyte would hold up the recorder.
        return _drawn(text[:_DRAWN], key, seed or text) + text[_DRAWN:].translate(_FLAT)
    choices = _choices(text)
    size = _size(choices)
    if size is not None and size <= _SHORT:
        return _permuted(text, choices, size, key)
    digest = hmac.digest(key, b"pseudonym\0" + (seed or text).encode("utf-8", "surrogatepass"), "sha256")
    draws = memoryview(hashlib.shake_256(digest).digest(4 * len(text))).cast("I")
    drawn = list(text)
    for place, (choice, draw) in enumerate(zip(choices, draws, strict=True)):
        if choice:
            drawn[place] = _pick(choice, draw)
    if _UUID.fullmatch(text):
        # Version and variant say which generator made it: parsers look.
        drawn[14], drawn[19] = text[14], text[19]
    return _with_mark(drawn, choices)


def _choices(text: str) -> list[Choices | None]:
    """What each character may become; `None` for those that stay."""
    alphabets = _HEXADECIMAL if _is_hexadecimal(text) else _PLAIN
    choices = [_choice(character, alphabets) for character in text]
    if "0" <= text[:1] <= "9":
        # A number stays a number of as many digits, and one of 64 bits stays one.
        choices[0] = "123456789" if text[0] != "0" else "0"
        if text[0] != "0" and text.isascii() and text.isdigit() and len(text) in (19, 20):
            choices[:2] = "1", "01234567"
    return choices


def _choice(character: str, alphabets: tuple[str, str, str]) -> Choices | None:
    if character < "\x80":
        for alphabet, (first, last) in zip(alphabets, _KINDS, strict=True):
            if first <= character <= last:
                return alphabet
        return None
    code = ord(character)
    return next((base for low, high, base in _FOREIGN if low <= code < high), None)


def _is_hexadecimal(text: str) -> bool:
    letters = [character for character in text if character.isalnum()]
    return len(letters) >= 8 and all(character in "0123456789abcdefABCDEF" for character in letters)


def _size(choices: list[Choices | None]) -> int | None:
    """How many texts of this kind there are; `None` where other scripts are in it, which are not permuted."""
    size = 1
    for choice in choices:
        if isinstance(choice, range):
            return None
        size *= len(choice) if choice else 1
    return size


def _pick(choices: Choices, draw: int) -> str:
    picked = choices[draw % len(choices)]
    return chr(picked) if isinstance(picked, int) else picked


def _permuted(text: str, choices: list[Choices | None], size: int, key: bytes) -> str:
    """A keyed permutation of all texts of this kind (Black and Rogaway, 2002: Feistel with cycle walking)."""
    places = [(i, choice) for i, choice in enumerate(choices) if isinstance(choice, str)]
    number = 0
    for i, choice in places:
        number = number * len(choice) + choice.index(text[i])
    kind = "".join(choice[0] if isinstance(choice, str) else "." for choice in choices)
    number = _walk(number, size, lambda data: hmac.digest(key, f"short\0{kind}\0{data}".encode(), "sha256"))
    drawn = list(text)
    for i, choice in reversed(places):
        number, place = divmod(number, len(choice))
        drawn[i] = choice[place]
    return "".join(drawn)


def _walk(number: int, size: int, digest: Callable[[str], bytes]) -> int:
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while size > 1:
        left, right = number >> half, number & low
        for turn in range(8):
            left, right = right, left ^ int.from_bytes(digest(f"{turn}\0{right}")[:4]) & low
        number = left << half | right
        if number < size:
            break
    return number


# --- the mark


def _with_mark(drawn: list[str], choices: list[Choices | None]) -> str:
    places = _mark_places(drawn)
    for place, byte in zip(places, _checksum(drawn, places), strict=False):
        choice = choices[place]
        if isinstance(choice, str):
            drawn[place] = choice[byte % len(choice)]
    return "".join(drawn)


def _is_marked(value: str) -> bool | None:
    value = value[:_DRAWN]
    size = _size(_choices(value))
    if size is not None and size <= _SHORT:
        return None
    places = _mark_places(value)
    if not places:
        return None
    sums = dict(zip(places, _checksum(value, places), strict=False))
    return any(
        all(
            value[place] == choice[byte % len(choice)]
            for place, byte in sums.items()
            if isinstance(choice := _choice(value[place], alphabets), str)
        )
        for alphabets in (_PLAIN, _HEXADECIMAL)
    )


def _mark_places(text: Sequence[str]) -> list[int]:
    """The last one or two letters or digits; none in a text that has but a few."""
    places = [i for i, character in enumerate(text) if character.isascii() and character.isalnum()]
    return places[-(1 if len(places) < 10 else 2) :] if len(places) > 5 else []


def _checksum(text: Sequence[str], places: list[int]) -> bytes:
    rest = "".join("*" if i in places else character for i, character in enumerate(text)).lower()
    return hashlib.sha256(b"mark\0" + rest.encode("utf-8", "surrogatepass")).digest()


# --- what has a grammar


def _alone(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _back_into(text: str, characters: str) -> str:
    """The characters in the places of the letters and digits of `text`."""
    each = iter(characters)
    return "".join(next(each) if character.isalnum() else character for character in text)


def _email(secret: str, key: bytes) -> str:
    # Lower case is the seed: addresses that differ in case only are one address.
    local, _, domain = secret.partition("@")
    ending = ".test" if len(domain) > 5 else ".zz"
    name = _drawn(local, key, seed=secret.lower()) if len(local) > 5 else _short_local(local, secret, key)
    host = _lower_draw(len(domain) - len(ending), domain.lower(), key)
    return f"{name}@{host}{ending}"


def _short_local(local: str, secret: str, key: bytes) -> str:
    # Short names are seeded by the whole address: `al@one` and `al@two` are two people.
    digest = hmac.digest(key, b"local\0" + secret.lower().encode(), "sha256")
    choices = _choices(local)
    return "".join(_pick(c, digest[i]) if c else local[i] for i, c in enumerate(choices))


def _lower_draw(length: int, seed: str, key: bytes) -> str:
    digest = hashlib.shake_256(hmac.digest(key, b"domain\0" + seed.encode(), "sha256")).digest(length)
    return "".join(_SMALL[byte % 26] for byte in digest)


def _card(secret: str, key: bytes) -> str:
    number = _alone(secret)
    core = number[:2] + _drawn(number[2:-1], key, seed=number)
    return _back_into(secret, core + str(-luhn_sum(core.encode() + b"0") % 10))


def _iban(secret: str, key: bytes) -> str:
    iban = _alone(secret)
    account = _drawn(iban[4:], key, seed=iban)
    check = 98 - iban_remainder(f"{iban[:2]}00{account}".encode())
    return _back_into(secret, f"{iban[:2]}{check:02d}{account}")


def _phone(secret: str, key: bytes) -> str:
    # The digits alone are the seed, so that a number is itself however it is grouped.
    number, kept = _alone(secret), 2 * secret.startswith("+")
    return _back_into(secret, number[:kept] + _drawn(number[kept:], key, seed=number))


def _jwt(secret: str, key: bytes) -> str:
    head, body, signature = secret.split(".")
    claims = _claims(body)
    if claims is None:
        body = _drawn(body, key)
    else:
        hidden = _hidden_claims(claims, key).encode()
        body = base64.urlsafe_b64encode(hidden).rstrip(b"=").decode()
    if _claims(head) is None:
        head = _drawn(head, key)
    return f"{head}.{body}.{_drawn(signature, key, seed=secret)}"


_CLAIM = re.compile(r'("(?:[^"\\]|\\.)*+"\s*+:)|"((?:[^"\\]|\\.)*+)"|(-?\d[\d.eE+-]*+)', re.DOTALL)
_TIMES = re.compile(r'"(?:exp|iat|nbf|auth_time)"\s*:')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def _claims(part: str) -> str | None:
    """The JSON of a JWT's part as text, `None` where it is none."""
    try:
        plain = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        orjson.loads(plain)
        return plain.decode()
    except (binascii.Error, ValueError):
        return None


def _hidden_claims(claims: str, key: bytes) -> str:
    """The claims with every value drawn anew, save the times: expiry must still be read."""
    name = ""

    def each(found: re.Match[str]) -> str:
        nonlocal name
        if found[1]:
            name = found[1]
            return found[0]
        if found[3]:
            return found[3] if _TIMES.fullmatch(name) else _hidden_number(found[3], key)
        return f'"{_hidden_string(found[2], key)}"'

    return _CLAIM.sub(each, claims)


def _hidden_number(number: str, key: bytes) -> str:
    mantissa, mark, exponent = number.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    return sign + pseudonym(mantissa.removeprefix("-"), key) + mark + exponent


def _hidden_string(text: str, key: bytes) -> str:
    """A JSON string's inside: escapes stay escapes, of characters of the same kind."""
    parts = _ESCAPE.split(text)
    if len(parts) == 1:
        return pseudonym(text, key)
    plain = "".join(chr(int(part, 16)) if part and i % 2 else part or "" for i, part in enumerate(parts))
    return "".join(
        (f"\\u{ord(_same_kind(part, plain, key)):04x}" if part else "\\n")
        if i % 2
        else _drawn(part or "", key, plain)
        for i, part in enumerate(parts)
    )


def _same_kind(code: str, seed: str, key: bytes) -> str:
    character = chr(int(code, 16))
    choice = _choice(character, _PLAIN)
    digest = hmac.digest(key, f"escape\0{seed}".encode("utf-8", "surrogatepass"), "sha256")
    return _pick(choice, int.from_bytes(digest[:4])) if choice else character


def _api_key(secret: str, key: bytes) -> str:
    found = API_KEY_PREFIX.match(secret.encode())
    kept = found.end() if found else 0
    return secret[:kept] + _drawn(secret[kept:], key)


def _pem(text: str) -> tuple[str, str]:
    """The opening line, and the characters of the key without line ends, also escaped ones."""
    head, dashes, rest = text.partition("PRIVATE KEY-----")
    return head + dashes, re.sub(r"\\.|\s", "", rest)


def _private_key(secret: str, key: bytes) -> str:
    head, core = _pem(secret)
    drawn = iter(_drawn(core, key))
    rest = re.findall(r"\\.|.", secret[len(head) :], re.DOTALL)
    return head + "".join(unit if len(unit) == 2 or unit.isspace() else next(drawn) for unit in rest)


def _url_credentials(secret: str, key: bytes) -> str:
    user, _, password = secret.partition(":")
    return f"{pseudonym(user, key)}:{pseudonym(password, key)}"


def _ip(secret: str, key: bytes) -> str:
    if ":" in secret:
        return _drawn(secret, key)
    digest = hmac.digest(key, b"ip\0" + secret.encode(), "sha256")
    spans = {1: (0, 10), 2: (10, 90), 3: (100, 156)}
    octets = (spans[len(octet)] for octet in secret.split("."))
    return ".".join(str(low + digest[i] % size) for i, (low, size) in enumerate(octets))


_SPECIAL: dict[str, Callable[[str, bytes], str]] = {
    "private_keys": _private_key,
    "jwt": _jwt,
    "api_keys": _api_key,
    "url_credentials": _url_credentials,
    "email": _email,
    "iban": _iban,
    "card": _card,
    "phone": _phone,
    "ip": _ip,
}
