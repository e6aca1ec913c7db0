"""`replay-accepted.toml`: the accepted differences, a file of the user's own repository beside replay.toml.

One table an entry, sorted by endpoint, path and kind, so that a change of one is a change of few lines. The id
decides what is accepted; the other words say it to whoever reads the file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from replay.diff.accepted import Acceptance
from replay.errors import ConfigError

NAME = "replay-accepted.toml"
_HEAD = (
    "# Differences that somebody has looked at and accepts until a day: `replay accept` writes them.\n"
    "# Whoever lifts one deletes its table.\n"
)
_TEXTS = ("finding", "endpoint", "path", "kind", "because")


def beside(config: Path | None) -> Path:
    """Where the file is: beside replay.toml, or in the current directory."""
    return (config.parent if config else Path()) / NAME


def load(path: Path) -> tuple[Acceptance, ...]:
    """What the file holds, nothing where there is none; `ConfigError` names the entry and the fix."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    entries = data.pop("accepted", [])
    if data or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: it holds nothing but tables, each headed [[accepted]]")
    found = tuple(_acceptance(path, number, entry) for number, entry in enumerate(entries, 1))
    ids = [entry.finding for entry in found]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise ConfigError(f"{path}: {twice} is accepted twice: leave one of the two")
    return found


def save(path: Path, entries: Iterable[Acceptance]) -> None:
    """Write the file anew; `ConfigError` where that cannot be."""
    ordered = sorted(entries, key=lambda entry: (entry.endpoint, entry.path, entry.kind, entry.finding))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text("\n".join([_HEAD, *map(_table, ordered)]), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _acceptance(path: Path, number: int, entry: dict[str, Any]) -> Acceptance:
    where = f"{path}: [[accepted]] {number}"
    for key, value in entry.items():
        if key not in (*_TEXTS, "until"):
            raise ConfigError(f"{where} has no key {key!r}; known are {', '.join((*_TEXTS, 'until'))}")
        if key in _TEXTS and not isinstance(value, str):
            raise ConfigError(f'{where}: {key} must be text: {key} = "…"')
    until = entry.get("until")
    if not isinstance(until, date) or isinstance(until, datetime):
        raise ConfigError(f"{where} needs the last day it holds, without quotes: until = 2027-01-31")
    if not re.fullmatch(r"[0-9a-f]{8}", entry.get("finding", "")):
        raise ConfigError(f"{where} needs the id of a finding, eight hexadecimal digits as reports show it")
    if not entry.get("because", "").strip():
        raise ConfigError(f'{where} needs a reason: because = "…"')
    return Acceptance(until=until, **{key: entry[key] for key in _TEXTS if key in entry})


def _table(entry: Acceptance) -> str:
    lines = [f"{key} = {_quoted(value)}" for key in _TEXTS if (value := getattr(entry, key))]
    return "\n".join(["[[accepted]]", *lines, f"until = {entry.until.isoformat()}"]) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, but for DEL; half surrogates, which UTF-8 has none of, are replaced."""
    plain = text.encode("utf-8", "replace").decode()
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
