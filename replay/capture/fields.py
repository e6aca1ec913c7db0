"""The leaves of a JSON text with their paths and places, read without building the document.

Places, so that one value is replaced and every other byte stays; tolerant, so that a body that was cut is read
as far as it goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"?|-?\d[\d.eE+-]*|true|false|null|[][{},:]', re.DOTALL)
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar: its path (`$.items[0].name`), and where its text begins and ends, quotes not counted."""

    path: str
    start: int
    end: int
    quoted: bool


def leaves(text: bytes) -> Iterator[Leaf]:
    """The scalars of a JSON text, in order."""
    stack: list[int | None] = []  # an index in an array, None in an object
    path = ["$"]
    name = ""
    expect_name = False
    for found in _TOKEN.finditer(text):
        token = found[0][:1]
        if token in b"{[":
            stack.append(0 if token == b"[" else None)
            # Far below any path that anybody names, the way down is no longer told: it would be told at each leaf.
            path.append(
                ""
                if len(path) > _DEEPEST
                else _step(stack[-2] if len(stack) > 1 else None, name, len(stack) > 1)
            )
            expect_name = token == b"{"
        elif token in b"}]":
            if not stack:
                return
            stack.pop()
            path.pop()
        elif token == b",":
            expect_name = bool(stack) and stack[-1] is None
            if stack and stack[-1] is not None:
                stack[-1] += 1
        elif token == b":":
            expect_name = False
        elif expect_name and found[1] is not None:
            name = found[1].decode("utf-8", "replace")
        else:
            quoted = found[1] is not None
            start, end = found.span(1) if quoted else found.span()
            here = _step(stack[-1] if stack else None, name, bool(stack))
            yield Leaf("".join(path) + here, start, end, quoted)


def _step(index: int | None, name: str, inside: bool) -> str:
    if not inside:
        return ""
    return f".{name}" if index is None else f"[{index}]"


def compile_path(path: str) -> re.Pattern[str]:
    """`$.users[*].email` or `$..email` as a pattern for paths of leaves; what is below a path is in it."""
    parts = re.split(r"(\.\.|\[\*\]|\.\*)", path.removeprefix("$"))
    known = {"..": r"(?:.*\.)", "[*]": r"\[\d+\]", ".*": r"\.[^.\[]+"}
    body = "".join(known.get(part) or re.escape(part) for part in parts)
    return re.compile(rf"\${body}(?:[.\[].*)?", re.DOTALL)
