"""`replay show`'s text: differences marked where they stand."""

import pytest

from replay.diff.compare import tree_differences
from replay.diff.lift import lift
from replay.report.exchange import Answered, Asked, Shown, render
from replay.verbs.showing import lines_of

JSON = (("Content-Type", "application/json"),)


def answered(name: str, body: bytes, other: bytes | None = None) -> Answered:
    lifted = lift(body, JSON)
    found = tree_differences(lift(other, JSON).tree, lifted.tree) if other is not None else []
    return Answered(name, "200 in 1 ms", JSON, lines_of(lifted), (), tuple(found))


def asked(method: str = "GET", url: str = "/a", headers: tuple = (), body: bytes = b"") -> Asked:
    return Asked("as captured", method, url, (f"{method} {url} HTTP/1.1",), headers, body, ())


OLD = b'{"id": 1, "items": [{"price": 2.5, "name": "tea"}], "at": "10:00"}'
NEW = b'{"id": 1, "items": [{"price": "2.50", "name": "tea"}], "at": "10:00", "extra": null}'


@pytest.mark.parametrize("width", [60, 140])
def test_only_what_differs_is_marked(width: int) -> None:
    shown = Shown("x-1", "GET /a", asked(), (answered("old", OLD), answered("new", NEW, OLD)), ())
    text = render(shown, width)
    marked = [line for line in text.splitlines() if line.startswith(("- ", "+ ")) or "≠" in line]
    assert "2 differences in new" in text
    assert sum('"2.50"' in line for line in marked) == 1
    assert not any('"tea"' in line or '"10:00"' in line for line in marked)
    assert all(len(line) <= width for line in text.splitlines())


def test_foreign_text_cannot_steer_the_terminal() -> None:
    body = b'{"a": "\x1b[2J\xe2\x80\xae"}'.replace(b"\x1b", b"\\u001b")
    shown = Shown("x-1", "GET /\x1b[2J", asked(url="/\x1b]0;x"), (answered("old", body),), ())
    assert "\x1b" not in render(shown, 80)
