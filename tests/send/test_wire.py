"""Captured requests as bytes: what is kept, what is changed, what cannot be sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.send.wire import Changes, Request, Serialiser, serialise

NONE = Changes()


def request(**values: object) -> Request:
    plain = Request("GET", "/", "shop.test", "HTTP/1.1", (("Host", "shop.test"),), b"", 0)
    return plain._replace(**values)


@pytest.mark.parametrize(
    ("made", "head", "body"),
    [
        (request(), b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", b""),
        (
            request(headers=(("hOsT", "a"), ("X-A", "1"), ("x-a", "2"), ("X-Empty", ""))),
            b"GET / HTTP/1.1\r\nhOsT: a\r\nX-A: 1\r\nx-a: 2\r\nX-Empty: \r\n\r\n",
            b"",
        ),
        (request(target="//a%2fb/%7E\xc3\xbc?q=a&x=%41;y#f", headers=()),
         b"GET //a%2fb/%7E\xc3\xbc?q=a&x=%41;y#f HTTP/1.1\r\n\r\n", b""),
        (request(method="OPTIONS", target="*", headers=()), b"OPTIONS * HTTP/1.1\r\n\r\n", b""),
        (request(target="http://other/x", headers=()), b"GET http://other/x HTTP/1.1\r\n\r\n", b""),
        (request(method="brew-IT!", headers=()), b"brew-IT! / HTTP/1.1\r\n\r\n", b""),
        (request(http_version="HTTP/1.0", headers=()), b"GET / HTTP/1.0\r\n\r\n", b""),
        (
            request(method="POST", headers=(("content-length", "3"),), body=b"abc", size=3),
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n",
            b"abc",
        ),
        (
            request(method="POST", headers=(("Transfer-Encoding", "chunked"),), body=b"a" * 20, size=20),
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"14\r\n" + b"a" * 20 + b"\r\n0\r\n\r\n",
        ),
        (
            request(method="POST", headers=(("Transfer-Encoding", "chunked"),), body=b"", size=0),
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\n\r\n",
        ),
    ],
)  # fmt: skip
def test_bytes_are_the_captured_ones(made: Request, head: bytes, body: bytes) -> None:
    wire = serialise(made, NONE)
    assert (wire.head, wire.body, wire.exact, wire.skipped) == (head, body, True, None)


@pytest.mark.parametrize(
    ("made", "changes", "head"),
    [
        (
            request(http_version="HTTP/2.0", headers=((":path", "/"), ("accept", "*/*"))),
            NONE,
            b"GET / HTTP/1.1\r\nHost: shop.test\r\naccept: */*\r\n\r\n",
        ),
        (request(), Changes(host="staging:8080"), b"GET / HTTP/1.1\r\nHost: staging:8080\r\n\r\n"),
        (request(), Changes(set=(("X-Tag", "1"),)), b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Tag: 1\r\n\r\n"),
        (
            request(headers=(("A", "1"), ("b", "2"), ("a", "3"))),
            Changes(set=(("a", "9"),)),
            b"GET / HTTP/1.1\r\nA: 9\r\nb: 2\r\n\r\n",
        ),
        (
            request(headers=(("A", "1"), ("b", "2"), ("a", "3"))),
            Changes(remove=frozenset({"a"})),
            b"GET / HTTP/1.1\r\nb: 2\r\n\r\n",
        ),
        (
            request(method="POST", headers=(("Content-Length", "9"), ("A", "1")), body=b"abc", size=3),
            NONE,
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nA: 1\r\n\r\n",
        ),
        (
            request(method="POST", http_version="HTTP/2.0", headers=(), body=b"abc", size=3),
            NONE,
            b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\n",
        ),
    ],
    ids=["http/2", "host", "set a new one", "set over two", "remove", "wrong length", "no length"],
)
def test_deliberate_changes_are_told(made: Request, changes: Changes, head: bytes) -> None:
    wire = serialise(made, changes)
    assert (wire.head, wire.exact) == (head, False)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (request(method="CONNECT", target="a:443"), "connect"),
        (request(headers=(("Upgrade", "websocket"),)), "upgrade"),
        (request(body=None, size=5), "body not captured"),
        (request(body=b"ab", size=5), "body truncated"),
        (request(headers=(("X", "a\r\nHost: evil"),)), "malformed"),
        (request(target="/a\nb"), "malformed"),
        (request(method="GET /x HTTP/1.1\r\n"), "malformed"),
        (request(method="GE T"), "malformed"),
        (request(target="/\u20ac"), "malformed"),
    ],
)
def test_what_cannot_be_sent_says_why(made: Request, reason: str) -> None:
    wire = serialise(made, NONE)
    assert (wire.skipped, wire.head, wire.body) == (reason, b"", b"")


text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=20)


@given(
    st.lists(st.tuples(st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True), text), max_size=8),
    st.binary(max_size=50),
)
def test_one_request_stays_one_request(headers: list[tuple[str, str]], body: bytes) -> None:
    framing = {"content-length", "transfer-encoding", "upgrade"}
    kept = tuple(header for header in headers if header[0].lower() not in framing)
    wire = serialise(request(method="POST", headers=kept, body=body, size=len(body)), NONE)
    lines = wire.head.decode("latin-1").split("\r\n")
    assert lines[-2:] == ["", ""]
    sent = [tuple(line.split(": ", 1)) for line in lines[1:-2]]
    assert sent == [*kept, *([("Content-Length", str(len(body)))] if body else [])]
    assert wire.body == body


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "HEAD", "CONNECT", "POST", "a b", "G\r\nET"]),
            st.sampled_from(["/", "/a%2f?q=1", "/\xfc", "/\u20ac", "/a b", "/\r\nX: 1", "/\0"]),
            st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]),
            st.sampled_from(
                [
                    (),
                    (("Host", "a"), ("X", "1")),
                    ((":path", "/"), ("accept", "*/*")),
                    (("Upgrade", "websocket"),),
                    (("Content-Length", "3"),),
                    (("Transfer-Encoding", "chunked"),),
                    (("X", "1\r\nY: 2"),),
                ]
            ),
            st.sampled_from([(b"", 0), (None, 0), (b"abc", 3), (None, 3), (b"ab", 3)]),
        ),
        max_size=12,
    ),
    st.sampled_from([NONE, Changes(host="h"), Changes(set=(("X", "2"),), remove=frozenset({"host"}))]),
)
def test_header_lines_that_are_remembered_give_the_same_bytes(requests: list, changes: Changes) -> None:
    remembering = Serialiser(changes, most=2)
    for method, target, version, headers, (body, size) in requests:
        made = Request(method, target, "shop.test", version, headers, body, size)
        assert remembering(made) == serialise(made, changes)
