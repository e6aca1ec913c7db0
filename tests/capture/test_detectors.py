"""Secrets that show by form or name, in every place a message has; the operator's own rules."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from replay.capture.fields import leaves
from replay.capture.pseudonyms import is_marked, pseudonym
from replay.capture.redact import Policy, Redactor
from replay.capture.shapes import iban_remainder, luhn_sum, shape_of
from replay.errors import ConfigError

KEY = b"k" * 32
JSON = [("Content-Type", "application/json")]


def jwt(**claims: Any) -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, "c2lnbmF0dXJlLW9mLTMyLWJ5dGVzLW9yLXNvLi4u"))


JWT = jwt(sub="alice@example.com", name='Ali "A" \u0416', exp=1700000000, level=12345)
SECRETS = {
    "email": "alice.smith+news@example.com",
    "card": "4111111111111111",
    "card in groups": "5500 0055 5555 5559",
    "amex": "3782-822463-10005",
    "iban": "DE89370400440532013000",
    "iban in groups": "GB82 WEST 1234 5698 7654 32",
    "phone": "+49 151 2345 6789",
    "us phone": "(415) 555-2671",
    "stripe key": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "aws key": "AKIA" + "IOSFODNN7EXAMPLE",
    "github key": "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "jwt": JWT,
    "private key": "-----BEGIN PRIVATE KEY-----MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
}


def redactor(*tables: dict[str, Any]) -> Redactor:
    return Redactor(Policy.of(tables), KEY)


def places(secret: str) -> dict[str, tuple[str, list[tuple[str, str]], bytes | None]]:
    raw = secret.encode()
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    multipart = [("Content-Type", "multipart/form-data; boundary=b")]
    return {
        "header": ("/", [("X-Note", f"for {secret} only")], None),
        "query": (f"/x?q={quote(secret, safe='')}&b=1", [], None),
        "path": (f"/x/{quote(secret, safe='')}/y", [], None),
        "json": ("/", list(JSON), b'{"note": "to %b.", "n": 1.50}' % raw),
        "json after an escape": ("/", list(JSON), b'{"note": "to\\n%b"}' % raw),
        "json within json": ("/", list(JSON), json.dumps({"log": json.dumps({"note": secret})}).encode()),
        "form": ("/", form, b"a=1&note=%b" % quote(secret, safe="").encode()),
        "multipart": (
            "/",
            multipart,
            b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n%b\r\n--b--' % raw,
        ),
        "text": ("/", [("Content-Type", "text/plain")], b"write to %b, please" % raw),
    }


@pytest.mark.parametrize("kind", SECRETS)
def test_a_shape_is_found_in_every_place_and_is_the_same_pseudonym(kind: str) -> None:
    secret = SECRETS[kind]
    drawn = pseudonym(secret, KEY)
    assert drawn != secret
    assert len(drawn) == len(secret)
    for place, (target, headers, body) in places(secret).items():
        if (kind, place) == ("private key", "path"):
            continue  # a slash is a letter of base64
        subject = redactor()
        redacted = subject.message(target, list(headers), body)
        # Every byte around the secret is as it was.
        expected = str((target, headers, body))
        for form in (quote(secret, safe=""), secret):
            expected = expected.replace(form, quote(drawn, safe="") if form != secret else drawn)
        assert str(redacted) == expected, place
        assert subject.take_found(), place


@pytest.mark.parametrize("kind", [kind for kind in SECRETS if kind != "private key"])
def test_a_pseudonym_keeps_the_grammar_and_carries_its_mark(kind: str) -> None:
    secret = SECRETS[kind]
    drawn = pseudonym(secret, KEY)
    shape = shape_of(secret.encode())
    assert shape
    assert shape_of(drawn.encode()) == shape
    assert is_marked(drawn)
    assert not is_marked(secret)


def test_cards_and_ibans_stay_valid() -> None:
    for number in range(200):
        core = f"41111111{number:07d}"
        card = pseudonym(core + str(-luhn_sum((core + "0").encode()) % 10), KEY)
        assert luhn_sum(card.encode()) == 0
        assert card.startswith("41")
        account = f"37040044{number:010d}"
        iban = pseudonym(f"DE{98 - iban_remainder(f'DE00{account}'.encode()):02d}{account}", KEY)
        assert iban_remainder(iban.encode()) == 1


def test_a_jwt_keeps_three_parts_of_readable_json() -> None:
    head, claims, _ = pseudonym(JWT, KEY).split(".")
    read = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims)]
    assert read[0] == {"alg": "HS256", "typ": "JWT"}
    assert read[1]["exp"] == 1700000000
    assert read[1]["sub"] == pseudonym("alice@example.com", KEY)
    assert "Ali" not in read[1]["name"]
    assert len(str(read[1]["level"])) == 5


def test_a_uuid_keeps_version_and_variant() -> None:
    drawn = pseudonym("550e8400-e29b-41d4-a716-446655440000", KEY)
    assert (drawn[14], drawn[19]) == ("4", "a")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_short_secrets_never_share_a_pseudonym(width: int) -> None:
    pins = [f"{number:0{width}d}" for number in range(10**width)]
    drawn = [pseudonym(pin, KEY) for pin in pins]
    assert len(set(drawn)) == len(pins)
    assert sorted(drawn) == pins
    # A number stays one of as many digits.
    assert all((pin[0] == "0") == (new[0] == "0") for pin, new in zip(pins, drawn, strict=True))


def test_an_address_is_one_whatever_its_case_and_grouping() -> None:
    assert pseudonym("Bob.Jones@Example.COM", KEY).lower() == pseudonym("bob.jones@example.com", KEY)
    grouped, plain = pseudonym("4111 1111 1111 1111", KEY), pseudonym("4111111111111111", KEY)
    assert grouped.replace(" ", "") == plain


@pytest.mark.parametrize(
    "body",
    [
        b'{"image": "logo@2x.png", "order": 1234567890123456, "price": 0.4111111111111111}',
        b'{"at": "2024-05-01T12:00:00+02:00", "ms": 1714557600000, "v": "10.2.33.4"}',
        b'{"id": "4111111111111112", "uuid": "41111111-1111-4111-8111-111111111111", "mobile": "1"}',
        b'{"tokens": 3, "phone": "iPhone 12", "sha": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}',
    ],
)
def test_what_only_looks_alike_is_untouched(body: bytes) -> None:
    assert redactor().message("/", list(JSON), body)[2] is body


@pytest.mark.parametrize(
    ("headers", "body", "secret"),
    [
        (JSON, b'{"passwords": ["hunter22", "hunter23"]}', b"hunter2"),
        (JSON, b'{"auth": {"tokens": "hunter22"}}', b"hunter22"),
        (JSON, b'{"phone": 4915123456789}', b"4915123456789"),
        (JSON, b'{"log": "{\\"password\\": \\"hunter22\\"}"}', b"hunter22"),
        (JSON, b'{"note": "alice\\u0040example.com"}', b"alice"),
        (JSON, b'{"to": "\\u002B4915123456789"}', b"4915123456789"),
        ([("Content-Type", "text/xml")], b"<a><password>hunter22</password></a>", b"hunter22"),
        ([("Content-Type", "text/plain")], b"login failed: password=hunter22 for bob", b"hunter22"),
        ([("Content-Type", "text/plain")], b"postgres://bob:hunter22@db.internal/x", b"hunter22"),
        ([("Content-Type", "application/x-www-form-urlencoded")], b"passwords%5B%5D=hunter22", b"hunter22"),
        ([("Content-Type", "application/x-www-form-urlencoded")], b"user[password][]=hunter22", b"hunter22"),
    ],
)
def test_named_secrets_in_less_common_clothes(
    headers: list[tuple[str, str]], body: bytes, secret: bytes
) -> None:
    redacted = redactor().message("/", list(headers), body)[2] or b""
    assert secret not in redacted
    assert redacted != body
    if headers is JSON:
        json.loads(redacted)


def test_addresses_of_machines_are_replaced_on_request() -> None:
    headers = [("X-Forwarded-For", "203.0.113.7, 2001:db8::7")]
    assert redactor().message("/", list(headers), None)[1] == headers
    rule = {"detector": "ip", "action": "pseudonym"}
    assert "203.0.113.7" not in str(redactor(rule).message("/", list(headers), None))
    assert "2001:db8::7" not in str(redactor(rule).message("/", list(headers), None))


BODY = (
    b'{"user": {"name": "Ann Lee", "age": 41, "tags": ["a-1", "b-2"]}, "email": "ann@example.com", "x": null}'
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"json": "$.user.name", "action": "mask"}, BODY.replace(b"Ann Lee", b"*** ***")),
        ({"json": "$.user.age", "action": "mask"}, BODY.replace(b"41", b"0")),
        ({"json": "$.user.name", "action": "drop"}, BODY.replace(b'"Ann Lee"', b"null")),
        ({"json": "$..name", "action": "drop"}, BODY.replace(b'"Ann Lee"', b"null")),
        ({"json": "$.user.tags[*]", "action": "mask"}, BODY.replace(b"a-1", b"*-*").replace(b"b-2", b"*-*")),
        (
            {"json": "$.user.tags", "action": "drop"},
            BODY.replace(b'"a-1"', b"null").replace(b'"b-2"', b"null"),
        ),
        ({"regex": r"Ann (Lee)", "action": "mask"}, BODY.replace(b"Lee", b"***")),
        ({"regex": r"Ann ", "action": "drop"}, BODY.replace(b"Ann ", b"")),
    ],
)
def test_rules_on_bodies(rule: dict[str, str], expected: bytes) -> None:
    address = pseudonym("ann@example.com", KEY).encode()
    subject = redactor(rule)
    assert subject.message("/", list(JSON), BODY)[2] == expected.replace(b"ann@example.com", address)
    assert subject.counts["rules"] >= 1


def test_keep_wins_over_the_detectors() -> None:
    assert redactor({"json": "$.email", "action": "keep"}).message("/", list(JSON), BODY)[2] == BODY
    assert redactor({"detector": "email", "action": "keep"}).message("/", list(JSON), BODY)[2] == BODY
    headers = [("X-Api-Key", "public-key-1234")]
    assert redactor({"header": "x-api-key", "action": "keep"}).message("/", list(headers), None)[1] == headers


def test_rules_on_headers_and_parameters() -> None:
    rules = (
        {"header": "x-internal-*", "action": "drop"},
        {"header": "X-Customer", "action": "pseudonym"},
        {"query": "city", "action": "mask"},
        {"query": "ref", "action": "drop"},
    )
    headers = [("X-Internal-Host", "db1"), ("X-Customer", "Acme Corp 7"), ("Accept", "*/*")]
    target, headers, _ = redactor(*rules).message("/x?city=New%20York&ref=abc&q=1", headers, None)
    assert target == "/x?city=%2A%2A%2A%20%2A%2A%2A%2A&q=1".replace("%2A", "*")
    assert headers == [("X-Customer", pseudonym("Acme Corp 7", KEY)), ("Accept", "*/*")]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "name one place"),
        ({"header": "a", "query": "b"}, "name one place"),
        ({"header": "a", "action": "burn"}, "choose drop, mask"),
        ({"headr": "a"}, "unknown key 'headr'"),
        ({"regex": "("}, "no regular expression"),
        ({"json": "user"}, "must begin at the document"),
        ({"detector": "emial"}, "no detector is called"),
        ({"detector": "email", "action": "drop"}, "not dropped"),
        ({"header": 3}, "must be a text"),
    ],
)
def test_a_wrong_rule_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Policy.of([table])


def test_the_fingerprint_follows_the_rules() -> None:
    prints = {
        Policy.of(tables).fingerprint
        for tables in ([], [{"header": "a"}], [{"header": "a", "action": "mask"}], [{"detector": "ip"}])
    }
    assert len(prints) == 4


def test_what_was_found_is_told_with_its_place() -> None:
    subject = redactor()
    subject.begin()
    subject.message("/x?token=abcdefgh", [("Cookie", "a=secret-1"), *JSON], b'{"to": "ann@example.com"}')
    assert subject.take_found() == [
        ("cookies", "header cookie"),
        ("urls", "target token"),
        ("email", "body to"),
    ]


def test_leaves_have_paths_and_places() -> None:
    text = b'{"a": {"b": [1, {"c": "x"}, true]}, "d": [], "e": "cut'
    found = {leaf.path: text[leaf.start : leaf.end] for leaf in leaves(text)}
    assert found == {"$.a.b[0]": b"1", "$.a.b[1].c": b"x", "$.a.b[2]": b"true", "$.e": b"cut"}


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html", "multipart/form-data", ""])
@pytest.mark.parametrize(
    "piece",
    [b"a", b"1", b"A1", b"@", b'"', b"a@", b"a.", b"+1 ", b"%41", b"\\", b'"a', b"<a ", b"=", b"a:", b"eyJ."],
)
def test_no_text_takes_longer_than_its_length(kind: str, piece: bytes) -> None:
    def seconds(size: int) -> float:
        body = (b'{"token": "%41 ' + piece * (size // len(piece)) + b"\x01%42")[:size]
        before = time.process_time()
        redactor().message("", [("Content-Type", kind)] if kind else [], body)
        return time.process_time() - before

    assert seconds(100_000) < 1.0
