"""One exchange for a terminal: what was asked, each build's answer beside the baseline's, and how to ask again.

The verb has read and compared; here it is only laid out. Lines of a body carry the path they show, so that
what differs is marked where it stands and nowhere else.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from replay.findings import Difference
from replay.model import Header
from replay.report import words
from replay.report.screen import render as render_parts

SIDE_BY_SIDE = 110
"""Columns from which two answers stand beside each other; below, one stands below the other."""

MAX_LINES = 400
"""Lines of a body that are shown."""

_MAX_ALIGNED = 4000


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a body: its text, and the path of what it shows (empty: none of its own)."""

    text: str
    path: str


Row = tuple[Line | None, Line | None, bool]
"""A line of the old answer, the one of the new that stands beside it, and whether that is a difference."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The request. `origin` says where it was read from; `body` is as sent, `body_lines` as it reads.

    `head` is the request line and headers, one line each, as they travelled.
    """

    origin: str
    method: str
    url: str
    head: tuple[str, ...]
    headers: tuple[Header, ...]
    body: bytes
    body_lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one run got for it. `outcome` is the first line: `200 in 4.1 ms`, or `failed: refused`.

    `differences` are those to the first run's answer (empty for the first itself).
    """

    name: str
    outcome: str
    headers: tuple[Header, ...]
    body: tuple[Line, ...]
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One exchange in one or more runs, the first of which the others are held against.

    `asked` is the request of the first, `otherwise` those of runs that sent another one (each build has its own live
    values). `curls` pairs the name of a run with the line that asks its target again.
    """

    exchange_id: str
    endpoint: str
    asked: Asked | None
    answers: tuple[Answered, ...]
    curls: tuple[tuple[str, str], ...]
    otherwise: tuple[tuple[str, Asked], ...] = ()


def render(shown: Shown, width: int = 110, color: bool = False) -> str:
    """The exchange as text, `width` columns wide; only the lines to copy are as long as they must be."""
    return render_parts(_parts(shown, width), width, color) + "".join(_again(shown))


def _again(shown: Shown) -> Iterator[str]:
    for name, line in shown.curls:
        yield f"\nAsk {name} again:\n{line}\n"


def curl(asked: Asked, base: str) -> str:
    """A line for a POSIX shell that sends the same bytes to `base` (`http://host:port`).

    What curl would add by itself is taken away. The line is plain ASCII but for text in the body: other bytes
    are written by printf, and a body that no argument can hold is piped in. Two things curl does its own way:
    Host comes first, and an empty header has no blank behind its colon.
    """
    old = asked.head and asked.head[0].endswith("HTTP/1.0")
    parts = ["curl", "--silent", "--show-error", "--include", "--path-as-is", "--globoff"]
    parts.append("--http1.0" if old else "--http1.1")
    if asked.method == "HEAD":
        parts.append("--head")
    elif asked.method != ("POST" if asked.body else "GET"):
        parts += ["--request", _word(asked.method)]
    own = {"user-agent", "accept"} | ({"content-type", "expect"} if asked.body else set())
    for name, value in asked.headers:
        if name.startswith(":"):
            continue
        own.discard(name.lower())
        # Given as a header, it also decodes the answer; alone, the option would ask for encodings of its own.
        parts += ["--compressed"] if name.lower() == "accept-encoding" else []
        parts += ["--header", _word(f"{name}: {value}" if value else f"{name};")]
    for name in sorted(own):
        parts += ["--header", f"{name.title()}:"]
    pipe = ""
    if asked.body:
        text = _argument(asked.body)
        parts += ["--data-binary", "@-" if text is None else shlex.quote(text)]
        pipe = "" if text is not None else f"printf '%b' {shlex.quote(_octal(asked.body))} | "
    url = base.rstrip("/") + asked.url
    if "#" in asked.url or not asked.url.startswith("/"):  # more than a URL may ask for
        parts += ["--request-target", _word(asked.url)]
        url = base
    return pipe + " ".join([*parts, _word(url)])


def _word(text: str) -> str:
    """Text that stands for bytes (latin-1) as one word for a shell."""
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    return f"\"$(printf '%b' {shlex.quote(_octal(text.encode('latin-1', 'replace')))})\""


def _argument(body: bytes) -> str | None:
    """The body as a shell argument; `None` where it has to be piped (binary, or `@file` to curl)."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    printable = all(char.isprintable() or char in "\n\t" for char in text)
    return text if printable and not text.startswith("@") else None


def _octal(body: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\0{byte:03o}" for byte in body)


def _parts(shown: Shown, width: int) -> Iterator[RenderableType]:
    yield Text(f"{words.clean(shown.endpoint)}   {shown.exchange_id}", style="bold")
    if shown.asked is None:
        yield Text("The request is not at hand: its capture has moved, or is not this run's.", style="yellow")
    else:
        yield from _request(shown.asked)
    for name, asked in shown.otherwise:
        yield from _request(asked, f" of {name}")
    first, *others = shown.answers
    if not others:
        yield from _alone(first)
    for other in others:
        yield from _beside(first, other, width) if width >= SIDE_BY_SIDE else _below(first, other)


def _request(asked: Asked, whose: str = "") -> Iterator[RenderableType]:
    yield Text(f"\nRequest{whose} ({asked.origin})", style="bold")
    for line in asked.head:
        yield Text("  " + words.clean(line))
    if asked.body_lines:
        yield Text("")
        yield from (Text("  " + words.clean(line.text)) for line in _cut(asked.body_lines))


def _alone(answer: Answered) -> Iterator[RenderableType]:
    yield Text(f"\n{answer.name}: {answer.outcome}", style="bold")
    for row in _column(answer):
        yield Text("  " + words.clean(row.text))


def _beside(left: Answered, right: Answered, width: int) -> Iterator[RenderableType]:
    yield Text("")
    table = Table(box=None, pad_edge=False, expand=True, show_header=True, padding=(0, 1, 0, 0))
    half = (width - 5) // 2
    table.add_column(f"{left.name}: {left.outcome}", width=half, overflow="fold")
    table.add_column("", width=1, no_wrap=True)
    table.add_column(f"{right.name}: {right.outcome}", width=half, overflow="fold")
    for old, new, differs in rows_of(left, right):
        style = ("red", "green") if differs else ("", "")
        table.add_row(
            Text(words.clean(old.text) if old else "", style=style[0]),
            Text(_sign(old, new) if differs else "", style="bold yellow"),
            Text(words.clean(new.text) if new else "", style=style[1]),
        )
    yield table
    yield from _differences(right)


def _below(left: Answered, right: Answered) -> Iterator[RenderableType]:
    yield Text(f"\n- {left.name}: {left.outcome}\n+ {right.name}: {right.outcome}", style="bold")
    for old, new, differs in rows_of(left, right):
        if not differs:
            line = old or new
            yield Text(f"  {words.clean(line.text) if line else ''}")
            continue
        if old:
            yield Text(f"- {words.clean(old.text)}", style="red")
        if new:
            yield Text(f"+ {words.clean(new.text)}", style="green")
    yield from _differences(right)


def _differences(answer: Answered) -> Iterator[RenderableType]:
    count = len(answer.differences)
    if not count:
        yield Text(f"\n{answer.name} answered alike", style="bold green")
        return
    yield Text(f"\n{count:,} difference{'' if count == 1 else 's'} in {answer.name}", style="bold")
    yield Group(
        *(
            Text(f"  {words.clean(item.path)}: {item.kind}", style="yellow")
            for item in answer.differences[:40]
        )
    )
    if count > 40:
        yield Text(f"  and {count - 40:,} more", style="dim")


def _sign(old: Line | None, new: Line | None) -> str:
    return "≠" if old and new else "-" if old else "+"


def rows_of(left: Answered, right: Answered, paths: Sequence[str] | None = None) -> Iterator[Row]:
    """Lines beside each other by what they show, and whether they stand for a difference.

    `paths` are the places that differ; left out, those of the right answer's differences.
    """
    if paths is None:
        paths = tuple(difference.path for difference in right.differences)
    old, new = _column(left), _column(right)
    for a, b in _aligned(old, new):
        texts = {line.text for line in (a, b) if line is not None}
        line = a or b
        differs = len(texts) > 1 or a is None or b is None
        yield a, b, differs and line is not None and _covered(line.path, paths)


def _covered(path: str, paths: Iterable[str]) -> bool:
    """Whether a line at `path` shows what differs: the place itself, or something in it or around it."""
    return any(
        path == found
        or path.startswith((f"{found}.", f"{found}["))
        or found.startswith((f"{path}.", f"{path}["))
        for found in paths
    )


def _column(answer: Answered) -> list[Line]:
    lines = [Line(note, "") for note in answer.notes]
    lines += [Line(f"{name}: {value}", f"headers.{name.lower()}") for name, value in answer.headers]
    return [*lines, Line("", ""), *_cut(answer.body)]


def _cut(lines: Sequence[Line]) -> list[Line]:
    if len(lines) <= MAX_LINES:
        return list(lines)
    return [*lines[:MAX_LINES], Line(f"… {len(lines) - MAX_LINES:,} more lines", "")]


def _aligned(old: Sequence[Line], new: Sequence[Line]) -> Iterator[tuple[Line | None, Line | None]]:
    """Lines of the same place together; what has no partner stands alone."""
    if len(old) + len(new) > _MAX_ALIGNED:
        count = max(len(old), len(new))
        for i in range(count):
            yield (old[i] if i < len(old) else None), (new[i] if i < len(new) else None)
        return
    keys = [[(line.path or line.text) for line in side] for side in (old, new)]
    for kind, i, i_end, j, j_end in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if kind == "equal":
            yield from zip(old[i:i_end], new[j:j_end], strict=True)
            continue
        yield from ((line, None) for line in old[i:i_end])
        yield from ((None, line) for line in new[j:j_end])
