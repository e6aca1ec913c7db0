"""Text for a terminal: rendered through rich into a string, control characters of foreign text made harmless."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"


def render(parts: Iterable[RenderableType], width: int, color: bool) -> str:
    """The parts one below the other, as text `width` columns wide; ANSI colours only where wanted."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=color,
        no_color=not color,
        color_system="256" if color else None,
        highlight=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str | None = None) -> Table:
    """A plain table; a column whose name begins with `>` is aligned to the right."""
    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(harmless(cell)) for cell in row))
    return made


def harmless(text: str) -> str:
    """Foreign text without what a terminal would obey: control characters become `\\xNN`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def sparkline(values: Sequence[float]) -> str:
    """Values as bars of eight heights, the highest one full."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, int(value / top * 7.999))] for value in values)


def size(number: float) -> str:
    """Bytes as a short text: 312 B, 4.1 kB, 2.0 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def milliseconds(ns: float | None) -> str:
    """Nanoseconds as milliseconds with three significant digits, or a dash."""
    if ns is None:
        return "-"
    value = ns / 1e6
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
