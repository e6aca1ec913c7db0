"""`replay accept`: put a finding on the list of accepted differences, looked up in a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson

from replay import acceptances
from replay.config import Config
from replay.diff.accepted import Acceptance
from replay.errors import InputError, UsageError
from replay.findings import NOISE

REPORT = "report.json"


def accept(
    config: Config, finding: str, until: str, because: str, report: Path | None = None
) -> tuple[Acceptance, Path]:
    """Accept a finding, named by its id or the beginning of one; returns the entry and the file it is in.

    An entry of the same finding is replaced. Without `report`, the newest of those that the gate and
    `replay report` write is looked in. `UsageError` where it is not found there, or the day or reason is off.
    """
    last = _day(until)
    if not because.strip():
        raise UsageError("--because is empty: say why, for whoever reads it when it expires")
    found = _look_up(finding, report or _newest(config))
    entry = Acceptance(until=last, because=because.strip(), **found)
    path = acceptances.beside(config.path)
    others = [other for other in acceptances.load(path) if other.finding != entry.finding]
    acceptances.save(path, [*others, entry])
    return entry, path


def _day(until: str) -> date:
    try:
        last = date.fromisoformat(until)
    except ValueError:
        raise UsageError(f"--until {until!r}: write a day as 2027-01-31") from None
    if last < datetime.now(UTC).date():
        raise UsageError(f"--until {until} is over already: name a day to come")
    return last


def _newest(config: Config) -> Path:
    home = config.path.parent if config.path else Path()
    out = config.gate.get("gate", {}).get("out", "gate-out")
    places = [home / str(out) / REPORT, home / "report" / REPORT]
    found = [path for path in places if path.is_file()]
    if not found:
        raise UsageError(
            "no report to look the finding up in: write one with `replay diff --json FILE`, name it by --report"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _look_up(wanted: str, report: Path) -> dict[str, str]:
    found = {
        item["finding"]: item for item in _items(report) if wanted and item["finding"].startswith(wanted)
    }
    if len(found) > 1:
        raise UsageError(f"{wanted} is the beginning of {len(found)} findings in {report}: write more of it")
    if not found:
        raise UsageError(f"{report} has no finding {wanted!r} that is not noise: reports show their ids")
    return next(iter(found.values()))


def _items(report: Path) -> Iterator[dict[str, str]]:
    """All that can be accepted in a JSON report: findings, and times that became slower."""
    try:
        document = orjson.loads(report.read_bytes())
        rows: Sequence[Any] = [*document["findings"], *document["latency"]]
        for row in rows:
            path, kind = row.get("path") or f"p{100 * row['quantile']:g}", row.get("kind", "slower")
            if row["judgement"] != NOISE:
                yield {"finding": row["id"], "endpoint": row["endpoint"], "path": path, "kind": kind}
    except FileNotFoundError:
        raise InputError(f"{report} does not exist: write it with `replay diff --json {report}`") from None
    except OSError as error:
        raise InputError(f"cannot read {report}: {error.strerror}") from None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise InputError(f"{report} is no JSON report: write one with `replay diff --json FILE`") from None
