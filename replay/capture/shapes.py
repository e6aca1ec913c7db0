"""Secrets that show by their form alone: what an e-mail address, a card, an IBAN, a JWT looks like in bytes.

A shape is a pattern, a cheap hint that must be in the text before the pattern is tried, and a check of what
the pattern found (Luhn for cards, ISO 7064 mod 97-10 for IBANs). Patterns read bytes, so that one set serves
headers, targets and bodies; none can run longer than its text times a small constant.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A form that gives a secret away. `hints`: one of them must occur; none to search always."""

    name: str
    pattern: re.Pattern[bytes]
    hints: tuple[bytes, ...] = ()
    holds: Callable[[bytes], bool] = lambda _: True

    def may_be_in(self, text: bytes) -> bool:
        """A cheap look before the close one."""
        return not self.hints or any(hint in text for hint in self.hints)

    def find(self, text: bytes) -> Iterator[re.Match[bytes]]:
        """Where the shape stands in `text`."""
        if self.may_be_in(text):
            yield from (found for found in self.pattern.finditer(text) if self.holds(found[0]))


def digits(text: bytes) -> bytes:
    """The digits alone."""
    return re.sub(rb"\D", b"", text)


def luhn_sum(number: bytes) -> int:
    """The checksum of ISO/IEC 7812 for a whole number: 0 where it is valid."""
    doubled = b"0246813579"
    places = reversed(number)
    return sum(doubled[d - 48] - 48 if i % 2 else d - 48 for i, d in enumerate(places)) % 10


def iban_remainder(iban: bytes) -> int:
    """ISO 13616: 1 where the check digits are right."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(chr(character), 36)) for character in turned)) % 97


_BRANDS = re.compile(
    rb"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    rb"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
# `logo@2x.png` and `react@latest.js` are files.
_FILE_ENDINGS = frozenset(
    b"png jpg jpeg gif svg webp avif ico js mjs css map json html htm xml txt md pdf woff ttf py rb ts tsx".split()
)
_API_KEY_PREFIX = (
    rb"(?:sk|pk|rk)_(?:live|test)_|sk-(?:ant-|proj-)?|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|AIza"
    rb"|SG\.|npm_|pypi-|shp(?:at|ss|ca|pa)_|hv[sb]\.|do[opr]_v1_|ya29\."
)


_API_KEY_HINTS = (
    *(b"k_live_", b"k_test_", b"sk-", b"AKIA", b"ASIA", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
    *(b"github_pat_", b"glpat-", b"xox", b"AIza", b"SG.", b"npm_", b"pypi-", b"shpat_", b"shpss_", b"shpca_"),
    *(b"shppa_", b"hvs.", b"hvb.", b"_v1_", b"ya29."),
)


def _is_card(found: bytes) -> bool:
    number = digits(found)
    return _BRANDS.fullmatch(number) is not None and luhn_sum(number) == 0


def _is_iban(found: bytes) -> bool:
    return iban_remainder(found.replace(b" ", b"")) == 1


def _is_email(found: bytes) -> bool:
    return found.rpartition(b".")[2].lower() not in _FILE_ENDINGS


def _is_phone(found: bytes) -> bool:
    return 8 <= len(digits(found)) <= 15


def _is_ip(found: bytes) -> bool:
    try:
        ipaddress.ip_address(found.decode("ascii"))
    except ValueError:
        return False
    return True


def _begun(first: bytes, not_after: bytes) -> bytes:
    """A first character that none of `not_after` precedes, save as the letter of an escape (`\\n` in JSON).

    It looks back after the character: a pattern that begins with a set is searched for many times faster.
    """
    return rb"%b(?:(?<![%b].)|(?<=\\[nrtbf].))" % (first, not_after)


_ALL = (
    Shape(
        "private_keys",
        re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?:[A-Za-z0-9+/=\r\n]|\\[nr]){16,20000}+"),
        (b"PRIVATE KEY-----",),
    ),
    Shape("jwt", re.compile(_begun(b"e", rb"\w-") + rb"yJ[\w-]{6,}+\.[\w-]{2,}+\.[\w-]*+"), (b"eyJ",)),
    Shape(
        "api_keys",
        re.compile(
            rb"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrtbf]))(?:%b)(?=[\w.-]{0,40}\d)[\w-]{12,}+(?:\.[\w-]+)*"
            % _API_KEY_PREFIX
        ),
        _API_KEY_HINTS,
    ),
    Shape(
        "url_credentials",
        re.compile(rb"(?<=://)[^/\s:@\"'<>]{1,64}:[^/\s@\"'<>]{1,128}(?=@)"),
        (b"://",),
    ),
    Shape(
        "email",
        re.compile(
            _begun(b"[A-Za-z0-9_]", rb"\w.%+-")
            + rb"[\w.%+-]{0,63}+@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])"
        ),
        (b"@",),
        _is_email,
    ),
    Shape(
        "iban",
        re.compile(
            _begun(b"[A-Z]", b"A-Za-z0-9")
            + rb"[A-Z]\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)(?![A-Za-z0-9])"
        ),
        (),
        _is_iban,
    ),
    Shape(
        "card",
        re.compile(
            _begun(b"[2-6]", rb"\w.-")
            + rb"(?:\d{12,18}+|\d{3}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{3}([ -])\d{6}\2\d{4,5})(?![\w-])(?!\.\d)"
        ),
        (),
        _is_card,
    ),
    Shape(
        "phone",
        re.compile(
            _begun(rb"\+", rb"\w+.")
            + rb"[1-9]\d{0,2}(?:[ ().\-/]{0,2}\d{1,12}){1,6}+(?!\w)"
            + rb"|"
            + _begun(rb"[\d(]", rb"\w.+-")
            + rb"(?:(?<=\()\d{3}\) ?|(?<=\d)\d\d-)\d{3}-\d{4}(?![\w-])"
        ),
        (b"+", b"-"),
        _is_phone,
    ),
    Shape(
        "ip",
        re.compile(
            _begun(rb"\d", rb"\w.")
            + rb"\d{0,2}(?:\.\d{1,3}){3}(?![\w.])|(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"
        ),
        (),
        _is_ip,
    ),
)
SHAPES: dict[str, Shape] = {shape.name: shape for shape in _ALL}
API_KEY_PREFIX = re.compile(_API_KEY_PREFIX)


def shape_of(text: bytes) -> str:
    """The name of the shape that `text` as a whole has, or the empty string. IP addresses are asked for last."""
    for shape in _ALL:
        if shape.may_be_in(text) and shape.pattern.fullmatch(text) and shape.holds(text):
            return shape.name
    return ""
