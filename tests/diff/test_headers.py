from __future__ import annotations

import pytest

from replay.diff.headers import header_differences

CASES = [
    pytest.param([("A", "1")], [("a", "1")], [], id="case of names"),
    pytest.param([("A", "1"), ("B", "2")], [("B", "2"), ("A", "1")], [], id="order of names"),
    pytest.param([("A", "1")], [("A", "2")], [("headers.a", "value", "1", "2")], id="value"),
    pytest.param([("A", "1")], [], [("headers.a", "missing", "1", None)], id="missing"),
    pytest.param([], [("A", "1")], [("headers.a", "extra", None, "1")], id="extra"),
    pytest.param([("V", "a"), ("V", "b")], [("V", "b"), ("V", "a")], [("headers.v", "order", "a, b", "b, a")],
                 id="order of values"),
    pytest.param([("V", "a"), ("V", "a")], [("V", "a")], [("headers.v", "value", "a, a", "a")], id="a value twice"),
    pytest.param([("Date", "1"), ("ETag", "x")], [("Date", "2"), ("ETag", "y")], [], id="values ignored"),
    pytest.param([("Date", "1")], [], [("headers.date", "missing", "1", None)], id="but presence is not"),
    pytest.param([("Content-Length", "1")], [("Transfer-Encoding", "chunked")], [], id="framing"),
    pytest.param([("Set-Cookie", "s=1; Path=/; Expires=now")], [("Set-Cookie", "s=2; expires=then; Path=/")], [],
                 id="cookie value"),
    pytest.param([("Set-Cookie", "s=1; HttpOnly")], [("Set-Cookie", "s=1")],
                 [("headers.set-cookie.s.httponly", "missing", "", None)], id="cookie attribute"),
    pytest.param([("Set-Cookie", "s=1; SameSite=Lax")], [("Set-Cookie", "s=1; Max-Age=60; samesite=None")],
                 [("headers.set-cookie.s.samesite", "value", "Lax", "None"),
                  ("headers.set-cookie.s.max-age", "extra", None, "60")], id="cookie attributes changed"),
    pytest.param([("Set-Cookie", "s=1; Path=/"), ("Set-Cookie", "t=1")], [("Set-Cookie", "s=1; Path=/")],
                 [("headers.set-cookie.t", "missing", "t=*", None)], id="a cookie less"),
    pytest.param([("Set-Cookie", "s=1; Path=/"), ("Set-Cookie", "s=1; Path=/a")], [("Set-Cookie", "s=1; Path=/")],
                 [("headers.set-cookie.s", "value", "s=*; path=/, s=*; path=/a", "s=*; path=/")],
                 id="a cookie of the same name less"),
    pytest.param([("Set-Cookie", "s=1; HttpOnly")], [],
                 [("headers.set-cookie", "missing", "s=*; httponly", None)], id="no cookies any more"),
    pytest.param([("Set-Cookie", "s=1")], [("Set-Cookie", "s=")],
                 [("headers.set-cookie.s", "value", "*", "")], id="cookie deleted"),
    pytest.param([("Set-Cookie", "a=1"), ("Set-Cookie", "b=1")], [("Set-Cookie", "b=1"), ("Set-Cookie", "a=1")], [],
                 id="cookies in another order"),
    pytest.param([("Location", "http://old:1/a?x=1&y=2#f")], [("Location", "http://new:2/a?x=1&z=3#f")],
                 [("headers.location.host", "value", "old:1", "new:2"),
                  ("headers.location.query.y", "missing", "2", None),
                  ("headers.location.query.z", "extra", None, "3")], id="address by parts"),
    pytest.param([("Location", "/a/1")], [("Location", "/b/1")],
                 [("headers.location.path", "value", "/a/1", "/b/1")], id="path of an address"),
    pytest.param([("Location", "/a?x=%41")], [("Location", "/a?x=A")],
                 [("headers.location", "value", "/a?x=%41", "/a?x=A")], id="an address written otherwise"),
    pytest.param([("Location", "http://[")], [("Location", "/a")],
                 [("headers.location.path", "value", "http://[", "/a")],
                 id="no address"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "expected"), CASES)
def test_headers(
    left: list[tuple[str, str]], right: list[tuple[str, str]], expected: list[tuple[object, ...]]
) -> None:
    found = header_differences(left, right)
    assert [(item.path, item.kind, item.left, item.right) for item in found] == expected


def test_order_of_names_where_it_is_asked_for() -> None:
    old, new = [("A", "1"), ("B", "1"), ("C", "1")], [("C", "1"), ("a", "1"), ("D", "1")]
    found = header_differences(old, new, order=True)
    assert [(item.path, item.kind, item.left, item.right) for item in found] == [
        ("headers.b", "missing", "1", None),
        ("headers.d", "extra", None, "1"),
        ("headers", "order", "a, c", "c, a"),
    ]
    assert not header_differences(old, old, order=True)
