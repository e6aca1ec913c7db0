"""Dates in requests, moved along with the recording: what asked for tomorrow then asks for tomorrow now.

Taken for dates are ISO 8601 days and instants, and seconds or milliseconds since 1970, in parameters, form fields and
JSON, if they lie near the recording's own time. They are written the way they were: days stay days, fractions keep
their digits, offsets stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from replay.errors import ConfigError
from replay.plan.pacing import parse_duration
from replay.plan.places import Place
from replay.plan.requests import substituted
from replay.plan.rewrite import Parts

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d)(:\d\d)?([.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
_EPOCH = re.compile(r"\d{10}|\d{13}")
_NS = 1_000_000_000
_DAY_NS = 86_400 * _NS
_KINDS = frozenset({"query", "form", "$"})


class Times(NamedTuple):
    """`[rewrite.time]`, checked: names that are shifted, how near dates must lie (ns), and the instant that the
    recording's first exchange is moved to (ns since 1970; `None`: when the run is planned)."""

    names: tuple[str, ...] = ("*",)
    within: int = 400 * _DAY_NS
    to: int | None = None

    def apply(self, parts: Parts, recorded_at: int, shift: int) -> Parts:
        """The parts of a request recorded at that instant, dates moved by `shift` ns."""

        def choose(place: Place, value: str) -> str | None:
            name = next(
                (str(step) for step in reversed((*place.keys, *place.within)) if isinstance(step, str)), ""
            )
            if place.kind not in _KINDS or not any(fnmatchcase(name, pattern) for pattern in self.names):
                return None
            return moved(value, shift, recorded_at, self.within)

        return Parts(*substituted(*parts, choose, _KINDS))


def times_of(table: Mapping[str, Any]) -> Times:
    """The table as settings; `ConfigError` names the key and the fix."""
    for key, value in table.items():
        if key not in Times._fields:
            raise ConfigError(f"[rewrite.time] has no key {key!r}; known are {', '.join(Times._fields)}")
        if key == "names" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise ConfigError('[rewrite.time] names must be a list of texts: names = ["from", "*_date"]')
    within = table.get("within")
    return Times(
        names=tuple(table.get("names", ("*",))),
        within=400 * _DAY_NS
        if within is None
        else int(parse_duration(str(within), "[rewrite.time] within") * _NS),
        to=_instant(table.get("to")),
    )


def _instant(given: Any) -> int | None:
    """TOML has instants of its own; a text may be one too."""
    if given is None:
        return None
    try:
        found = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise ConfigError(
            f"[rewrite.time] to = {given!r}: write an instant such as 2026-05-01T09:00:00Z"
        ) from None
    return _epoch_ns(found)


def moved(value: str, shift: int, near: int, within: int) -> str | None:
    """The date `shift` ns later, written alike; `None` for what is no date within so many ns of `near`."""
    size = len(value)
    if size < 10 or not value[0].isdigit():
        return None
    try:
        if _EPOCH.fullmatch(value):
            unit = _NS if size == 10 else _NS // 1000
            return str(int(value) + shift // unit) if abs(int(value) * unit - near) <= within else None
        if _DAY.fullmatch(value):
            day = date.fromisoformat(value)
            if abs(_epoch_ns(datetime(day.year, day.month, day.day)) - near) > within:
                return None
            return (day + timedelta(days=round(shift / _DAY_NS))).isoformat()
        return _moved_instant(value, shift, near, within)
    except (ValueError, OverflowError):
        return None


def _moved_instant(value: str, shift: int, near: int, within: int) -> str | None:
    found = _INSTANT.fullmatch(value)
    if found is None:
        return None
    day, separator, minute, second, fraction, zone = found.groups()
    at = datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{'+00:00' if zone in (None, 'Z') else zone}")
    if abs(_epoch_ns(at) - near) > within:
        return None
    later = at + timedelta(seconds=round(shift / _NS))
    text = later.strftime(f"%Y-%m-%d{separator}%H:%M" + (":%S" if second else ""))
    return f"{text}{fraction or ''}{zone or ''}"


def _epoch_ns(at: datetime) -> int:
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * _NS
