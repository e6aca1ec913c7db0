from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import brotli
import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from replay import codings
from replay.codings import decode
from replay.diff import lift as module
from replay.diff.lift import lift, media_type, parse_json

JSON = (("Content-Type", "application/json"),)


def of(kind: str, encoding: str = "") -> tuple[tuple[str, str], ...]:
    return (("Content-Type", kind), *((("Content-Encoding", encoding),) if encoding else ()))


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x07\0\0\0\x03\x08\x02\0\0\0\0\0\0\0"

FORMS = [
    pytest.param(b'{"a": 1}', of("application/json"), "json", {"a": 1}, id="json"),
    pytest.param(b"[1]", of("application/problem+json; charset=utf-8"), "json", [1], id="+json"),
    pytest.param(b'{"a":1}', (), "json", {"a": 1}, id="json that does not say so"),
    pytest.param(b"{a}", of("text/plain"), "text", ["{a}"], id="text that begins like json"),
    pytest.param("é".encode("latin-1"), of("text/plain; charset=iso-8859-1"), "text", ["é"], id="charset"),
    pytest.param(b"a\nb\r\nc", of("text/css"), "text", ["a", "b", "c"], id="text by lines"),
    pytest.param(
        b"<!doctype html><title>T &amp; u</title><p class=a>one <b>two</b>\n three<!-- x --><p>four",
        of("text/html"), "html",
        {"html": {"head": [{"title": [{"#text": "T & u"}]}], "#order": "head body", "body": [
                  {"p": [{"@class": "a", "#text": "one three", "b": [{"#text": "two"}]}, {"#text": "four"}]}]}},
        id="html"),
    pytest.param(b'<?xml version="1.0"?><a xmlns="urn:x" n="1"><b/>t<c>2</c><b/></a>', of("application/xml"), "xml",
                 {"a": {"@n": "1", "#text": "t", "b": [{}, {}], "c": [{"#text": "2"}], "#order": "b c b"}}, id="xml"),
    pytest.param(b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>x&e;</a>', of("text/xml"), "xml",
                 {"a": {"#text": "x &e;"}}, id="an entity stays an entity"),
    pytest.param(
        b'--b7\r\nContent-Type: application/json\r\n\r\n{"a":1}\r\n--b7\r\n\r\nplain\r\n--b7--\r\n',
        of("multipart/mixed; boundary=b7"), "multipart",
        [{"headers": {"content-type": "application/json"}, "body": {"a": 1}}, {"headers": {}, "body": ["plain"]}],
        id="multipart"),
    pytest.param(PNG, of("image/png"), "image", {"type": "image/png", "width": 7, "height": 3,
                 "content": "33 bytes, sha256 " + hashlib.sha256(PNG).hexdigest()[:16]}, id="image"),
    pytest.param(b"\xff", of("text/plain"), "text", ["\\xff"], id="text that is not its charset"),
    pytest.param(b"x", of("text/plain; charset=klingon"), "text", ["x"], id="unknown charset"),
    pytest.param(b'{"a":1}\n{"a":2}\n', of("application/x-ndjson"), "ndjson", [{"a": 1}, {"a": 2}], id="ndjson"),
    pytest.param(b"a=1&b=&a=2", of("application/x-www-form-urlencoded"), "form", {"a": ("1", "2"), "b": ""}, id="form"),
    pytest.param(b"", of("application/json"), "empty", "", id="empty"),
    pytest.param(b"\x89PNG\0", of("application/x-thing"), "binary", "5 bytes, sha256 b9be1e5b1fa3c1b1", id="binary"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "headers", "form", "tree"), FORMS)
def test_forms(body: bytes, headers: tuple[tuple[str, str], ...], form: str, tree: object) -> None:
    lifted = lift(body, headers)
    assert lifted.form == form
    if form == "binary":
        assert str(lifted.tree).startswith("5 bytes, sha256 ")
    else:
        assert lifted.tree == tree
    assert lifted.notes == ()


ENCODED = [
    ("gzip", gzip.compress(b'{"a":1}', mtime=0)),
    ("x-gzip", gzip.compress(b'{"a":1}', mtime=0)),
    ("gzip", gzip.compress(b'{"a"', mtime=0) + gzip.compress(b":1}", mtime=0)),
    ("deflate", zlib.compress(b'{"a":1}')),
    ("deflate", zlib.compress(b'{"a":1}', wbits=-15)),
    ("br", brotli.compress(b'{"a":1}')),
    ("zstd", zstandard.compress(b'{"a":1}')),
    ("gzip, br", brotli.compress(gzip.compress(b'{"a":1}', mtime=0))),
    ("identity", b'{"a":1}'),
]


@pytest.mark.parametrize(("encoding", "body"), ENCODED)
def test_content_encodings_are_undone(encoding: str, body: bytes) -> None:
    lifted = lift(body, of("application/json", encoding))
    assert (lifted.form, lifted.tree, lifted.notes) == ("json", {"a": 1}, ())


BROKEN = [
    pytest.param(b'{"a":', of("application/json"), "is not JSON", id="cut json"),
    pytest.param(b"nope", of("application/json", "gzip"), "is not gzip", id="not gzip"),
    pytest.param(gzip.compress(b"{}")[:-4], of("text/plain", "gzip"), "is not gzip: it ends early", id="cut gzip"),
    pytest.param(brotli.compress(b"{}" * 99)[:-2], of("text/plain", "br"), "is not br", id="cut br"),
    pytest.param(b"nope", of("text/plain", "zstd"), "is not zstd", id="not zstd"),
    pytest.param(b"{}", of("application/json", "lzma"), "content-encoding lzma is not known here", id="unknown"),
    pytest.param(b"[" * 100_000, of("application/json"), "is JSON nested too deeply to read", id="deep json"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "headers", "reason"), BROKEN)
def test_what_cannot_be_read_as_claimed_says_why(
    body: bytes, headers: tuple[tuple[str, str], ...], reason: str
) -> None:
    assert lift(body, headers).notes[0].startswith(reason)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_cut(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codings, "MAX_DECODED", 1 << 20)
    bomb = b"0" * (8 << 20)
    packed = {
        "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress,
    }[encoding](bomb)  # fmt: skip
    body, reason = decode(packed, encoding)
    assert len(body) == 1 << 20
    assert reason == f"cut at 1 MiB while decoding {encoding}"


EXACT = [
    pytest.param('{"a":1,"a":2,"b":3,"a":4}', {"a": (1, 2, 4), "b": 3}, id="a key thrice"),
    pytest.param('{"a" :1,"a" :2}', {"a": (1, 2)}, id="blanks before the colon"),
    pytest.param('{"a\\u0022:b":1,"c":1,"c":2}', {'a":b': 1, "c": (1, 2)}, id="escaped quotes"),
    pytest.param('[{"a":{"b":1,"b":1}}]', [{"a": {"b": (1, 1)}}], id="twice the same, deep inside"),
    pytest.param("18446744073709551616", 18446744073709551616, id="beyond 64 bits"),
    pytest.param("0.10000000000000000001", Decimal("0.10000000000000000001"), id="beyond a double"),
    pytest.param("0.30000000000000004", 0.30000000000000004, id="seventeen digits that a double holds"),
    pytest.param("1.0", 1.0, id="a float that is whole"),
    pytest.param('"\\ud800"', "\ud800", id="a lone surrogate"),
    pytest.param("\ufeff[1]", [1], id="a byte-order mark"),
]


@pytest.mark.parametrize(("text", "tree"), EXACT)
def test_nothing_of_a_json_text_is_lost(text: str, tree: Any) -> None:
    found, _ = parse_json(text.encode("utf-8"))
    assert (found, type(found)) == (tree, type(tree))


def test_not_a_number_is_read() -> None:
    found, canonical = parse_json(b'{"a":NaN,"b":-Infinity}')
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf
    assert canonical is None


PAIRS = st.recursive(
    st.one_of(
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(max_size=8),
        st.none(),
        st.booleans(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.tuples(st.sampled_from(["a", "b", 'q"', "é"]), inner), max_size=4),
    ),
    max_leaves=12,
)


def _write(tree: Any, style: tuple[str, str], ascii_only: bool) -> str:
    comma, colon = style
    if isinstance(tree, list) and tree and all(isinstance(item, tuple) for item in tree):
        members = (
            json.dumps(key, ensure_ascii=ascii_only) + colon + _write(value, style, ascii_only)
            for key, value in tree
        )
        return "{" + comma.join(members) + "}"
    if isinstance(tree, list):
        return "[" + comma.join(_write(item, style, ascii_only) for item in tree) + "]"
    return json.dumps(tree, ensure_ascii=ascii_only)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PAIRS, st.sampled_from([(",", ":"), (", ", ": "), (",\n ", " : "), (",", "\t:")]), st.booleans())
def test_the_fast_reader_is_used_only_where_it_reads_what_the_exact_one_does(
    tree: Any, style: tuple[str, str], ascii_only: bool
) -> None:
    body = _write(tree, style, ascii_only).encode("utf-8", "replace")
    found, canonical = parse_json(body)
    assert repr(found) == repr(module._parse_exactly(body))
    if canonical is not None:
        assert orjson.loads(canonical) == found


def test_media_types() -> None:
    assert media_type('Application/JSON ; Charset="UTF-8"') == ("application/json", "utf-8")
    assert media_type("") == ("", "")


def test_entities_are_not_resolved(tmp_path: Path) -> None:
    """Neither a file of this machine nor a billion laughs gets into a tree."""
    (tmp_path / "secret").write_text("s3cret")
    file = f'<!DOCTYPE a [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]><a>&e;</a>'
    laughs = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    for text in (file, f'<!DOCTYPE a [<!ENTITY e0 "ha">{laughs}]><a>&e9;</a>'):
        told = repr(lift(text.encode(), [("content-type", "application/xml")]).tree)
        assert "s3cret" not in told
        assert len(told) < 10_000
