"""docs/report-json.md documents every key of the JSON report, and none that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from replay.report.gate import Limits, judged
from replay.report.json_ import SCHEMA_VERSION, render

from .dossiers import dossier
from .reports import FULL

PAGE = (Path(__file__).parents[2] / "docs" / "report-json.md").read_text("utf-8")
DATA = {"unpaired", "failed", "skipped", "statuses", "lag_ns", "counts", "sent"}
"""Objects whose keys are data."""

SAME_SHAPE = {"books.control": "books.candidate", "run_facts[].fidelity.checks[]": "limits[]"}


def documented() -> dict[str, list[str]]:
    """Section → the keys of its table."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    return {
        "" if section.startswith("The document") else section.splitlines()[0].strip("`"): re.findall(
            r"^\| `(\w+)` \|", section, flags=re.MULTILINE
        )
        for section in sections
    }


def emitted(value: Any, path: str = "") -> dict[str, list[str]]:
    """Place → the keys of the objects that stand there."""
    if isinstance(value, list):
        found: dict[str, list[str]] = {}
        for item in value:
            found |= emitted(item, f"{path}[]")
        return found
    if not isinstance(value, dict) or path.rpartition(".")[2] in DATA:
        return {}
    if path == "requests":
        return {"requests{}": list(next(iter(value.values())))}
    found = {path: list(value)}
    for key, item in value.items():
        found |= emitted(item, f"{path}.{key}".strip("."))
    return found


def test_every_key_is_documented() -> None:
    found = emitted(json.loads(render(FULL, judged(dossier(FULL), Limits(error_rate=0.1)))))
    for place, shape in SAME_SHAPE.items():
        assert found.pop(place) == found[shape]
    assert {place: set(keys) for place, keys in documented().items()} == {
        place: set(keys) for place, keys in found.items()
    }


def test_the_page_is_of_this_version() -> None:
    assert f"`schema_version` is {SCHEMA_VERSION}." in PAGE
