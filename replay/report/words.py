"""How numbers and untrusted texts are written, the same in every report."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from replay.findings import Finding, LatencyRow, PairBook, Report

_BREAKS = {"\n": " ", "\r": " ", "\t": " "}


def clean(text: str) -> str:
    """Text from the wire without what could steer a terminal or turn around what is read.

    Control, format (bidirectional overrides among them), surrogate and private characters become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _BREAKS.get(char, char if unicodedata.category(char) not in _UNSAFE else "\ufffd") for char in text
    )


_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def percent(part: int, whole: int) -> str:
    """`3.9 %`; never rounds something to nothing, nor a part to the whole."""
    if not whole:
        return "-"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    if 99.9 < share < 100:
        return ">99.9 %"
    return f"{share:.0f} %" if share in (0, 100) or share >= 99.5 else f"{share:.2g} %"


def share(part: int, whole: int) -> str:
    """`12/310 = 3.9 %`."""
    return f"{part:,}/{whole:,} = {percent(part, whole)}"


def noise(finding: Finding) -> str:
    """How often the old build differs from itself at the same place."""
    return percent(finding.control_differing, finding.control_pairs) if finding.control_pairs else "?"


def milliseconds(value: float) -> str:
    """Three figures: `0.412 ms`, `4.12 ms`, `41.2 ms`, `4,120 ms`."""
    if value >= 100:
        return f"{value:,.0f} ms"
    return f"{value:.3g} ms"


def ratio(row: LatencyRow) -> str:
    """`9.93x (8.89 to 11.2)`, or `9.93x (too few)` where no interval can be told."""
    if row.high == float("inf") and not row.low:
        return f"{row.ratio:.3g}x (too few)"
    high = f"{row.high:.3g}" if row.high != float("inf") else "?"
    return f"{row.ratio:.3g}x ({row.low:.3g} to {high})"


def sides(report: Report) -> dict[str, str]:
    """Which run was which."""
    found = {"baseline": report.baseline, "candidate": report.candidate}
    if report.control is not None:
        found["control"] = report.control
    return {name: clean(path) for name, path in found.items()}


def alike(report: Report) -> str:
    """`2,990 of 3,000 exchanges answered alike (>99.9 %)`."""
    pairs = sum(row.pairs for row in report.endpoints)
    same = sum(row.alike for row in report.endpoints)
    return f"{same:,} of {pairs:,} exchanges answered alike ({percent(same, pairs)})"


def books(name: str, book: PairBook) -> str:
    """One line of the pair book: `candidate: 2,990 of 3,000 exchanges paired; 10 candidate: missing`."""
    line = f"{name}: {book.paired:,} of {book.exchanges:,} exchanges paired"
    return "; ".join([line, *(f"{count:,} {clean(reason)}" for reason, count in book.unpaired.items())])


def counted(counts: Mapping[str, int]) -> str:
    """`12 headers.date, 3 headers.age`."""
    return ", ".join(f"{count:,} {clean(name)}" for name, count in counts.items())


def measure(value: float | None, unit: str) -> str:
    """A measured value with its unit, as checks give them: `1.9 ms`, `3.9 %`, `1.2x`, `12`; `?` for none."""
    if value is None:
        return "?"
    if unit in ("share", "fraction"):
        return f"{100 * value:.3g} %"
    if unit == "ratio":
        return f"{value:.3g}x"
    number = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
    return number if unit in ("distance", "mean") else f"{number} {unit}".strip()
