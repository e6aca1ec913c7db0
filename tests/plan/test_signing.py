"""Signatures as a table: settings → header; and header lines put where they belong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

from replay.errors import ConfigError
from replay.plan.signing import checked, signed, with_header

HEAD = b"POST /a?b=1 HTTP/1.1\r\nHost: h\r\nx-sig: old\r\n\r\n"
PLAIN: dict[str, Any] = {"kind": "hmac", "header": "X-Sig", "secret": "k"}


def mac(text: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.digest(b"k", text, getattr(hashlib, algorithm))


TABLE = [
    pytest.param({}, mac(b"POST\n/a?b=1\n99\nbody").hex(), id="all of it"),
    pytest.param({"over": ["body"], "hash": "sha1"}, mac(b"body", "sha1").hex(), id="the body alone"),
    pytest.param({"over": ["timestamp", "body"], "separator": ".", "prefix": "t=,v1="},
                 "t=,v1=" + mac(b"99.body").hex(), id="with a prefix"),
    pytest.param({"encoding": "base64"}, base64.b64encode(mac(b"POST\n/a?b=1\n99\nbody")).decode(), id="base64"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "value"), TABLE)
def test_an_hmac_is_put_in_its_header(settings: dict[str, Any], value: str) -> None:
    head = signed(checked({**PLAIN, **settings}), HEAD, b"body", 99)
    assert head == HEAD.replace(b"x-sig: old", b"X-Sig: " + value.encode())


def test_the_timestamp_goes_along_where_it_is_asked_for() -> None:
    head = signed(checked({**PLAIN, "timestamp_header": "X-Time"}), HEAD, b"", 99)
    assert head.endswith(b"\r\nX-Time: 99\r\n\r\n")


LINES = [
    pytest.param("X-Sig", "new", {}, HEAD.replace(b"x-sig: old", b"X-Sig: new"), id="in its place"),
    pytest.param("A", "b", {}, HEAD[:-2] + b"A: b\r\n\r\n", id="at the end"),
    pytest.param("A", "b", {"only_there": True}, HEAD, id="only where it was"),
    pytest.param("A", "b\r\nEvil: 1", {}, HEAD[:-2] + b"A: bEvil: 1\r\n\r\n", id="one line only"),
]


@pytest.mark.parametrize(("name", "value", "how", "head"), LINES)
def test_a_header_line(name: str, value: str, how: dict[str, bool], head: bytes) -> None:
    assert with_header(HEAD, name, value, **how) == head


WRONG = [
    ({}, "kind = ''"),
    ({"kind": "hmac"}, "needs header and secret"),
    ({"kind": "aws"}, "needs service and region"),
    ({**PLAIN, "hash": "md4"}, "hash is one of"),
    ({**PLAIN, "over": ["moon"]}, "over is a list"),
    ({**PLAIN, "colour": "red"}, "no key 'colour'"),
]


@pytest.mark.parametrize(("table", "says"), WRONG)
def test_wrong_settings_are_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        checked(table)
