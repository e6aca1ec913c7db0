"""Scripts: with the recorded values they are the recorded bytes, with others only those places change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.plan.places import Place
from replay.plan.requests import KINDS, Kept, consumed, defined, joined, script, whole, written
from tests.plan.test_correlate import jwt


class Table:
    """Live values from a dictionary."""

    def __init__(self, values: dict[str, str] | None = None, jar: dict[str, str] | None = None) -> None:
        self.values, self.jar = values, jar or {}
        self.blocks: dict[int, Any] = {}

    def value(self, recorded: str, origin: Any) -> str | None:
        return recorded if self.values is None else self.values.get(recorded)

    def cookie(self, name: str) -> str | None:
        return self.jar.get(name)

    def follows(self) -> bool:
        return bool(self.jar)

    def block(self, number: int) -> tuple[bytes, bool]:
        return joined(self.blocks[number], self)


def request(target: str = "/", headers: tuple[str, ...] = (), body: bytes = b"") -> tuple[bytes, bytes]:
    lines = [f"POST {target} HTTP/1.1", "Host: shop.test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1"), body


def wanted(*values: str) -> Any:
    return lambda place, value: "here" if value in values else None


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


JSON, FORM = "Content-Type: application/json", "Content-Type: application/x-www-form-urlencoded"
PLACES = [
    pytest.param(request("/orders/41/items?x=1"), request("/orders/9%2F%C3%A9/items?x=1"), id="path"),
    pytest.param(request("/orders/41.json"), request("/orders/9%2F%C3%A9.json"), id="path with an extension"),
    pytest.param(request("/o?a=b&id=41&id=42"), request("/o?a=b&id=9/%C3%A9&id=42"), id="query"),
    pytest.param(request("/", ("X-Id: 41", "x-ID:  41 ")), request("/", ("X-Id: 9/é", "x-ID:  9/é ")), id="headers"),
    pytest.param(request("/", ("Authorization: Bearer 41",)),
                 request("/", ("Authorization: Bearer 9/é",)), id="bearer"),
    pytest.param(request("/", (f"Authorization: Basic {b64('me:41')}",)),
                 request("/", (f"Authorization: Basic {b64('me:9/é')}",)), id="basic"),
    pytest.param(request("/", ("Referer: http://shop.test/orders/41?q",)),
                 request("/", ("Referer: http://shop.test/orders/9%2F%C3%A9?q",)), id="a URL in a header"),
    pytest.param(request("/", (JSON,), b'{"a": [1, {"id" : 41}], "b": "41"}'),
                 request("/", (JSON,), '{"a": [1, {"id" : "9/é"}], "b": "9/é"}'.encode()), id="JSON"),
    pytest.param(request("/", (FORM,), b"a=1&id=41&b=%7B%22x%22%3A41%7D"),
                 request("/", (FORM,), b"a=1&id=9/%C3%A9&b=%7B%22x%22:%229/%C3%A9%22%7D"), id="form, and JSON in it"),
    pytest.param(request("/", ("Content-Type: multipart/form-data; boundary=x",),
                         b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n41\r\n--x--\r\n'),
                 request("/", ("Content-Type: multipart/form-data; boundary=x",),
                         '--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n9/é\r\n--x--\r\n'.encode()),
                 id="multipart"),
    pytest.param(request("/", ("X-State: " + b64('{"longer": 41}'),)),
                 request("/", ("X-State: " + b64('{"longer": "9/é"}'),)), id="base64 of JSON"),
    pytest.param(request("/", (f"X-Jwt: {jwt(sub='41', a=1)}",)),
                 request("/", (f"X-Jwt: {jwt(sub='9/é', a=1)}",)), id="JWT"),
]  # fmt: skip


@pytest.mark.parametrize(("recorded", "expected"), PLACES)
def test_live_values_are_written_as_their_places_write(
    recorded: tuple[bytes, bytes], expected: tuple[bytes, bytes], request: pytest.FixtureRequest
) -> None:
    made = script(*recorded, False, wanted("41"))
    assert made is not None
    assert written(made, Table()) == (*recorded, False)
    *live, differs = written(made, Table({"41": "9/é"}))
    assert differs
    if "JWT" in request.node.callspec.id:
        payload = live[0].split(b".")[-2].decode()
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert claims == {"sub": "9/é", "a": 1}
    else:
        assert tuple(live) == expected


def test_numbers_stay_numbers() -> None:
    made = script(*request("/", (JSON,), b'{"id":41,"s":"41"}'), False, wanted("41"))
    assert made is not None
    new = request("/", (JSON,), b'{"id":977,"s":"977"}')
    assert written(made, Table({"41": "977"})) == (*new, True)


def test_a_chunked_body_stays_one_chunk() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    made = script(head, b'{"id":41}', True, wanted("41"))
    assert made is not None
    assert written(made, Table({"41": "977"})) == (head, b'a\r\n{"id":977}\r\n0\r\n\r\n', True)


def test_cookies_follow_the_server_for_the_names_recorded() -> None:
    made = script(*request("/", ("Cookie: a=1; sid=old;b=2",)), False, wanted())
    assert made is not None
    assert written(made, Table()) == (*request("/", ("Cookie: a=1; sid=old;b=2",)), False)
    live = written(made, Table(jar={"sid": "new", "other": "x"}))
    assert live == (*request("/", ("Cookie: a=1; sid=new;b=2",)), True)


def test_header_lines_that_are_written_again_are_named() -> None:
    kept, live = Kept(), Table({"41": "977"})
    head, _ = request("/orders/41", ("X-Id: 41", "X-B: 1"))
    for times in range(3):
        made = script(head, b"", False, wanted("41"), KINDS, [b"41"], kept)
        assert made is not None
        block = defined(made)
        assert (block is None) == (times > 0)
        live.blocks.update([block] if block else [])
        assert written(made, live) == (head.replace(b"41", b"977"), b"", True)
        assert written(whole(made, live.blocks), Table({"41": "8"}))[0] == head.replace(b"41", b"8")


def test_a_body_that_changes_its_length_has_header_lines_of_its_own() -> None:
    kept, live = Kept(), Table({"41": "977"})
    for content, new in ((b'{"id":1}', b'{"id":1}'), (b'{"i":41}', b'{"i":977}'), (b'{"id":2}', b'{"id":2}')):
        made = script(*request("/", (JSON, "X-Id: 41"), content), False, wanted("41"), KINDS, [b"41"], kept)
        assert made is not None
        live.blocks.update([block] if (block := defined(made)) else [])
        assert written(made, live) == (*request("/", (JSON, "X-Id: 977"), new), True)


def test_a_header_cannot_be_split() -> None:
    made = script(*request("/", ("X-Id: 41",)), False, wanted("41"))
    assert made is not None
    live = written(made, Table({"41": "9\r\nEvil: 1"}))
    assert live[0].count(b"\r\n") == request("/", ("X-Id: 41",))[0].count(b"\r\n")


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
bodies = st.one_of(
    documents.map(
        lambda d: (JSON, json.dumps(d, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))
    ),
    documents.map(lambda d: (JSON, json.dumps(d).encode())),
    st.dictionaries(text, text).map(lambda d: (FORM, "&".join(f"{k}={v}" for k, v in d.items()).encode())),
    st.binary(max_size=40).map(lambda b: (JSON, b)),
    st.binary(max_size=40).map(lambda b: (FORM, b)),
    st.binary(max_size=40).map(lambda b: ("Content-Type: multipart/form-data; boundary=x", b)),
)
wire = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=30)
values = st.one_of(wire, documents.map(lambda d: b64(json.dumps(d))), text.map(lambda t: jwt(sub=t)))


@given(
    wire,
    st.lists(st.tuples(st.sampled_from(["Authorization", "X-A", "Cookie", "Referer"]), values)),
    bodies,
    st.integers(0, 12),
)
def test_the_identity_changes_no_byte(
    target: str, headers: list[tuple[str, str]], body: tuple[str, bytes], longest: int
) -> None:
    lines = (*(f"{name}: {value}" for name, value in headers), body[0])
    head, content = request("/" + target, lines, body[1])
    made = script(head, content, False, lambda place, value: "any" if len(value) <= longest else None)
    if made is None:
        return
    assert written(made, Table()) == (head, content, False)
    pieces = [piece for part in made[:2] for piece in part]
    assert b"".join(p if isinstance(p, bytes) else _raw(p) for p in pieces) == head + content


def _raw(piece: Any) -> bytes:
    return piece[1] if piece[0] in (2, 3) else piece[3] if piece[0] == 0 else piece[2]


def test_every_value_is_offered_with_its_place() -> None:
    found = consumed("/a/7?b=c", (("Cookie", "x=y"), ("X-Z", "w")), None)
    assert found == [
        (Place("path", (0,)), "a"),
        (Place("path", (1,)), "7"),
        (Place("query", ("b",)), "c"),
        (Place("cookie", ("x",)), "y"),
        (Place("header", ("x-z",)), "w"),
    ]
