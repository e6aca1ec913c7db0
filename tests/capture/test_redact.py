"""Redaction: nothing secret stays, shape and equality do."""

from __future__ import annotations

import base64
import gzip
import re
import string
import zlib
from urllib.parse import quote, unquote

import brotli
import orjson
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from replay.capture.redact import Policy, Redactor, pseudonym
from replay.model import Exchange

KEY = b"k" * 32
TOKEN = "tok-ABCdef-123456"
P = pseudonym(TOKEN, KEY)


def redactor() -> Redactor:
    return Redactor(Policy(), KEY)


def body_of(content_type: str, body: bytes) -> bytes:
    _, _, redacted = redactor().message("", [("Content-Type", content_type)], body)
    assert redacted is not None
    return redacted


def kinds(text: str) -> list[str]:
    return ["d" if c in string.digits else "l" if c.islower() else "u" if c.isupper() else c for c in text]


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=80))
@example("550e8400-e29b-41d4-a716-446655440000")
@example("")
def test_a_pseudonym_has_the_shape_of_its_secret(secret: str) -> None:
    drawn = pseudonym(secret, KEY)
    assert kinds(drawn) == kinds(secret)
    assert drawn == pseudonym(secret, KEY)


@given(st.text(max_size=40).filter(lambda text: text.isprintable()))
def test_a_pseudonym_has_as_many_bytes_as_its_secret(secret: str) -> None:
    assert len(pseudonym(secret, KEY).encode()) == len(secret.encode())


@given(st.binary(min_size=1, max_size=60))
def test_escapes_stay_where_they_are(secret: bytes) -> None:
    escaped = quote(secret, safe="")
    target, _, _ = redactor().message(f"/x?token={escaped}", [], None)
    drawn = target.removeprefix("/x?token=")
    assert len(drawn) == len(escaped)
    assert [i for i, c in enumerate(drawn) if c == "%"] == [i for i, c in enumerate(escaped) if c == "%"]


def test_a_pseudonym_is_another_under_another_key() -> None:
    assert pseudonym(TOKEN, KEY) != pseudonym(TOKEN, b"j" * 32) != TOKEN


@pytest.mark.parametrize(
    ("secret", "shape"),
    [
        ("550e8400-e29b-41d4-a716-446655440000", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("DEADBEEF01", r"[0-9A-F]{10}"),
        ("90210", r"[1-9]\d{4}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", r"eyJhbGciOiJIUzI1NiJ9\.[A-Za-z0-9]{15}\.[a-z0-9]{4}"),
        ("c2VjcmV0Kys+bc/Lz8=", r"[A-Za-z0-9]{11}\+[a-z]{2}/[A-Z][a-z]\d="),
    ],
)
def test_well_known_forms_stay_themselves(secret: str, shape: str) -> None:
    assert re.fullmatch(shape, pseudonym(secret, KEY))


PLACES = [
    ("bearer", ("/", [("Authorization", f"Bearer {TOKEN}")], None)),
    ("bare", ("/", [("authorization", TOKEN)], None)),
    ("scheme with parameters", ("/", [("Authorization", f'Token token="{TOKEN}", realm="x"')], None)),
    ("proxy", ("/", [("Proxy-Authorization", f"Bearer {TOKEN}")], None)),
    ("cookie", ("/", [("Cookie", f"a=; sid={TOKEN}")], None)),
    ("set-cookie", ("", [("Set-Cookie", f"sid={TOKEN}; Path=/; HttpOnly")], None)),
    ("api key", ("/", [("X-Api-Key", TOKEN)], None)),
    ("csrf header", ("/", [("X-CSRF-Token", TOKEN)], None)),
    ("query", (f"/x?a=1&access_token={TOKEN}&b=2", [], None)),
    ("fragment", ("", [("Location", f"https://app/cb#id_token={TOKEN}&state=1")], None)),
    ("referer", ("/", [("Referer", f"https://app/?token={TOKEN}")], None)),
    ("matrix", (f"/x;jsessionid={TOKEN}/y", [], None)),
    ("user info", ("", [("Location", f"https://{TOKEN}@host/")], None)),
    ("json", ("", [("Content-Type", "application/json")], b'{"a":[{"refresh_token" : "%b"}]}')),
    ("json in html", ("", [("Content-Type", "text/html")], b'<script>x={"csrfToken":"%b"}</script>')),
    ("json without a type", ("", [], b'{"apiKey":"%b"}')),
    ("cut json", ("", [("Content-Type", "application/json")], b'{"password":"%b')),
    (
        "form",
        ("/", [("Content-Type", "application/x-www-form-urlencoded")], b"u=1&user%%5Bpassword%%5D=%b&c=3"),
    ),
    ("html form", ("", [("Content-Type", "text/html")], b'<input type=hidden name="csrf_token" value="%b">')),
    ("meta", ("", [("Content-Type", "text/html")], b"<meta content='%b' name='csrf-token'>")),
    (
        "multipart",
        (
            "/",
            [("Content-Type", "multipart/form-data; boundary=b")],
            b'--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n%b\r\n--b--\r\n',
        ),
    ),
]


@pytest.mark.parametrize(
    ("target", "headers", "body"), [place for _, place in PLACES], ids=[n for n, _ in PLACES]
)
def test_the_same_secret_has_the_same_pseudonym_everywhere(
    target: str, headers: list[tuple[str, str]], body: bytes | None
) -> None:
    body = body % TOKEN.encode() if body is not None else None
    redacted = redactor().message(target, list(headers), body)
    assert TOKEN not in str(redacted)
    assert str(redacted) == str((target, headers, body)).replace(TOKEN, P)


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/orders?page=2&q=token", [("Accept", "*/*")], b""),
        ("/", [("Content-Type", "application/json")], b'{"token_type": "Bearer", "tokens": 3, "x": "token"}'),
        ("/", [("Content-Type", "application/json")], b'{"session": {"id": 1}, "password": null}'),
        ("/", [("Content-Type", "image/png")], b'{"token":"not looked at"}'),
        ("/", [("WWW-Authenticate", 'Basic realm="x"'), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==")], None),
        ("*", [], None),
    ],
)
def test_what_is_no_secret_is_untouched(
    target: str, headers: list[tuple[str, str]], body: bytes | None
) -> None:
    redacted = redactor().message(target, list(headers), body)
    assert redacted == (target, headers, body)
    assert redacted[2] is body


def test_basic_credentials_match_the_login_form() -> None:
    header = "Basic " + base64.b64encode(f"bob:{TOKEN}".encode()).decode()
    _, headers, _ = redactor().message("/", [("Authorization", header)], None)
    plain = base64.b64decode(headers[0][1].removeprefix("Basic ")).decode()
    assert plain.split(":")[1] == P
    assert plain.split(":")[0] != "bob"


def test_an_escaped_cookie_matches_the_header_a_script_makes_of_it() -> None:
    secret = "abc+/=XYZ12"
    _, headers, _ = redactor().message(
        "/",
        [("Cookie", f'XSRF-TOKEN={quote(secret, safe="")}; q="{secret}"'), ("X-XSRF-TOKEN", secret)],
        None,
    )
    cookie = headers[0][1].split("; ")
    assert unquote(cookie[0].partition("=")[2]) == headers[1][1] == cookie[1][2:].strip('"')


@given(st.text(max_size=30), st.integers())
def test_json_stays_json(secret: str, number: int) -> None:
    try:
        document = orjson.dumps({"token": secret, "pin": number, "otp": number / 3, "x": [secret, 1.50]})
    except orjson.JSONEncodeError:
        return
    redacted = orjson.loads(body_of("application/json", document))
    assert redacted["x"][0] in (secret, redacted["token"])  # an echo, where it is long enough
    assert redacted["token"] == pseudonym(secret, KEY)
    assert len(str(redacted["pin"])) == len(str(number))


CODINGS = {
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "br": (brotli.compress, brotli.decompress),
    "zstd": (zstandard.compress, zstandard.decompress),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_coded_body_is_opened_and_closed_again(coding: str) -> None:
    encode, decode = CODINGS[coding]
    plain = b'{"token":"%b","list":[1,2,3]}' % TOKEN.encode()
    body = encode(plain)
    headers = [("Content-Encoding", coding), ("Content-Length", str(len(body)))]
    _, headers, redacted = redactor().message("", headers, body)
    assert redacted is not None
    assert decode(redacted) == plain.replace(TOKEN.encode(), P.encode())
    assert headers == [("Content-Encoding", coding), ("Content-Length", str(len(redacted)))]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_coded_body_without_secrets_keeps_its_bytes(coding: str) -> None:
    body = CODINGS[coding][0](b'{"plain": true}')
    headers = [("Content-Encoding", coding), ("Content-Length", "1")]
    assert redactor().message("", list(headers), body) == ("", headers, body)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_cut_coded_body_holds_no_secret(coding: str) -> None:
    body = CODINGS[coding][0](b'{"token":"%b"}' % TOKEN.encode() * 3)[:-5]
    _, _, redacted = redactor().message("", [("Content-Encoding", coding)], body, whole=False)
    assert redacted is not None
    assert TOKEN.encode() not in CODINGS[coding][1](redacted)


def test_two_codings_are_opened_in_turn() -> None:
    body = brotli.compress(gzip.compress(b'{"token":"%b"}' % TOKEN.encode()))
    _, _, redacted = redactor().message("", [("Content-Encoding", "gzip, br")], body)
    assert gzip.decompress(brotli.decompress(redacted)) == b'{"token":"%b"}' % P.encode()


def test_a_body_that_is_not_in_its_coding_is_searched_as_it_is() -> None:
    _, _, redacted = redactor().message(
        "", [("Content-Encoding", "gzip")], b'{"token":"%b"}' % TOKEN.encode()
    )
    assert redacted == b'{"token":"%b"}' % P.encode()


def test_a_body_that_cannot_be_searched_is_left_out_and_counted() -> None:
    subject = redactor()
    body = bytearray(gzip.compress(TOKEN.encode() * 50, mtime=0))
    body[12] ^= 0xFF
    body[13] ^= 0xFF
    _, _, redacted = subject.message("", [("Content-Encoding", "gzip")], bytes(body))
    assert redacted is None
    assert subject.counts == {"unreadable bodies": 1}


def test_an_echo_of_a_secret_is_found_wherever_it_stands() -> None:
    subject = redactor()
    subject.message("/", [("Authorization", f"Bearer {TOKEN}")], None)
    answer = subject.message(
        "", [("X-Debug", f"got {TOKEN}")], b"<pre>Authorization: Bearer %b" % TOKEN.encode()
    )
    assert TOKEN not in str(answer)
    assert str(answer).count(P) == 2
    subject.begin()
    assert subject.message("", [], TOKEN.encode())[2] == TOKEN.encode()


def test_counts_tell_what_was_replaced() -> None:
    subject = redactor()
    subject.message("/?token=abcdef", [("Cookie", "a=xyzxyz"), ("Authorization", "Bearer abcdef")], b"")
    assert subject.counts == {"authorization": 1, "cookies": 1, "urls": 1}


def test_the_fingerprint_names_the_policy() -> None:
    assert Policy().fingerprint == Policy().fingerprint
    assert Policy(names=frozenset({"token"})).fingerprint != Policy().fingerprint


def test_an_exchange_is_redacted_on_both_sides() -> None:
    exchange = Exchange(
        *(
            "id",
            "session",
            "connection",
            1,
            None,
            None,
            None,
            "GET",
            "http",
            "h",
            f"/?token={TOKEN}",
            "",
            "HTTP/1.1",
        ),
        (("Cookie", f"sid={TOKEN}"),),
        (("Set-Cookie", f"sid={TOKEN}"),),
        *(b"", b'{"token":"%b"}' % TOKEN.encode(), 0, 29, False, 200, None),
    )
    redacted = redactor().exchange(exchange)
    assert TOKEN not in repr(redacted)
    assert repr(redacted).count(P) == 4
