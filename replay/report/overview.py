"""What is in a dataset: the figures that `replay inspect` shows, as data, text and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from rich.text import Text

from replay.report.fidelity import trip_text
from replay.report.screen import milliseconds, render, size, sparkline, table

_ACCOUNTS = {
    *("seen", "written", "sampled_out", "filtered", "dropped", "failed", "not_taken", "notes"),
    *("planned", "sent", "answered", "skipped", "left_out", "workers_lost", "sessions"),
}
_MOST_PLACES = 40


@dataclass(frozen=True, slots=True)
class EndpointMix:
    """One endpoint's part: rows, statuses, failures, mean body size in bytes, service time in ns."""

    endpoint: str
    count: int
    statuses: Mapping[str, int]
    failed: int
    mean_size: float
    p50_ns: float | None
    p99_ns: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A capture or run at a glance. `rate` is requests per `step_s` seconds, from the first to the last."""

    path: str
    kind: str
    meta: Mapping[str, Any]
    count: int
    seconds: float
    sessions: int
    connections: int
    step_s: float
    rate: tuple[int, ...]
    endpoints: tuple[EndpointMix, ...]
    lag_ns: Mapping[str, float]

    def to_json(self) -> bytes:
        """A JSON document."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_text(overview: Overview, width: int, color: bool) -> str:
    """The overview for a terminal."""
    return render([_head(overview), _rate(overview), _mix(overview), *_closing(overview)], width, color)


def _head(overview: Overview) -> Text:
    meta = overview.meta
    source = ", ".join(
        f"{key} {value}" for key, value in meta["source"].items() if isinstance(value, str | int)
    )
    text = Text()
    if told := left_out(meta):
        text.append(f"{told}\n", style="bold yellow")
    text.append(f"{overview.kind} {overview.path}", style="bold")
    text.append(f"  {meta['state']}, recorded {meta['started_at']}\n")
    text.append(f"from {source}\n" if source else "")
    noun = "exchanges" if overview.kind == "capture" else "arrivals"
    text.append(
        f"{overview.count:,} {noun} in {overview.seconds:,.1f} s, {overview.sessions:,} sessions,"
        f" {overview.connections:,} connections"
    )
    return text


def left_out(meta: Mapping[str, Any]) -> str:
    """What a run did not send for safety's sake and why, and the option that changes it; empty if nothing."""
    books = meta.get("books") or {}
    counts = books.get("left_out") or {}
    told = [f"kill switch: {trip_text(trip)}" for trip in books.get("trips", ())]
    if writes := counts.get("writes"):
        told.append(f"{writes:,} writes were not sent: --writes PATTERN (or all) sends them")
    if denied := counts.get("denied"):
        told.append(f"{denied:,} denied by --deny or [run] deny")
    return "; ".join(told)


def _rate(overview: Overview) -> Text:
    if not overview.rate:
        return Text("")
    top = max(overview.rate) / overview.step_s
    return Text(f"rate {sparkline(overview.rate)} up to {top:,.0f}/s (a bar is {overview.step_s:g} s)")


def _mix(overview: Overview) -> Any:
    total = max(1, overview.count)
    rows = [
        (
            mix.endpoint,
            f"{mix.count:,}",
            f"{mix.count / total:.1%}",
            " ".join(f"{status}×{count}" for status, count in mix.statuses.items()),
            f"{mix.failed:,}" if mix.failed else "",
            size(mix.mean_size),
            milliseconds(mix.p50_ns),
            milliseconds(mix.p99_ns),
        )
        for mix in overview.endpoints
    ]
    return table(("endpoint", ">count", ">share", "statuses", ">failed", ">size", ">p50 ms", ">p99 ms"), rows)


def _closing(overview: Overview) -> list[Text]:
    lines = []
    books = overview.meta.get("books") or {}
    if books:
        lines.append(
            Text(
                "books: "
                + ", ".join(
                    _entry(key, value) for key, value in books.items() if key in _ACCOUNTS and _told(value)
                )
            )
        )
    if told := crew_text(overview.meta):
        lines.append(Text(told))
    return lines + _redacted(overview.meta)


def crew_text(meta: Mapping[str, Any]) -> str:
    """How the workers of a run fared, where it had several; empty where it had one."""
    crew = meta.get("crew")
    if not crew:
        return ""
    told = [f"workers: {meta['source'].get('workers', 1)} at first"]
    if crew["joined_late"]:
        told.append(f"{crew['joined_late']} joined late")
    if crew["lost"]:
        told.append(f"lost: {', '.join(crew['lost'])}")
    if crew["shares_moved"]:
        told.append(f"{crew['shares_moved']} times one of {crew['shares']} shares moved to another worker")
    if crew["clock_error_ns"]:
        told.append(f"clocks within {crew['clock_error_ns'] / 1e6:.2f} ms of the master's")
    return ", ".join(told) if len(told) > 1 else ""


def _redacted(meta: Mapping[str, Any]) -> list[Text]:
    """What was redacted, by detector, and where, most frequent first."""
    counts, places = meta.get("redacted") or {}, meta.get("places") or {}
    if not counts:
        return []
    lines = [Text("redacted: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))]
    most = sorted(places.items(), key=lambda item: (-item[1], item[0]))
    lines += [Text(f"  {count:,} × {place}") for place, count in most[:_MOST_PLACES]]
    if len(most) > _MOST_PLACES:
        lines.append(Text(f"  and {len(most) - _MOST_PLACES:,} places more: --json has them all"))
    return lines


def _told(value: Any) -> bool:
    return isinstance(value, int | dict) and not isinstance(value, bool) and bool(value)


def _entry(key: str, value: Any) -> str:
    name = key.replace("_", " ")
    if isinstance(value, dict):
        return f"{name} " + " + ".join(f"{count} {reason}" for reason, count in value.items())
    return f"{name} {value:,}"
