"""What a report tells around the comparison: mix, times, errors, drift, lines around a change; and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.errors import UsageError
from replay.model import Exchange, Result
from replay.report.dossier import ALL, BASELINE, CANDIDATE, Dossier, DriftRow
from replay.store.writer import DatasetWriter
from replay.verbs.reporting import FILES, dossier_of, files_for, write_reports
from tests.rows import exchange, result

COUNT = 40


def dataset(path: Path, kind: str, rows: list[Exchange] | list[Result], **source: str) -> Path:
    writer = DatasetWriter(path, kind, source=source, settings={})
    for row in rows:
        writer.add(row)
    writer.close({})
    return path


def body(number: int, **fields: object) -> dict[str, object]:
    """`response_body` and its size."""
    text = json.dumps({"id": number, **fields}).encode()
    return {"response_body": text, "response_size": len(text)}


def staged(number: int) -> dict[str, object]:
    """The old build on staging: of products one in four is not there, one in four has another type."""
    if number % 4 == 0:
        return {"status": 404, **body(number)}
    price = "12.5" if number % 4 == 1 else 12.5
    return {**body(number, price=price, note="x" * 100), "duration_ns": 900_000}


def candidate(number: int) -> dict[str, object]:
    """The new build: as the old, but cannot answer the odd ones."""
    if number % 2:
        return {"status": 500, **body(number, error="no such table")}
    return staged(number)


@pytest.fixture(scope="module")
def dossier(tmp_path_factory: pytest.TempPathFactory) -> Dossier:
    home = tmp_path_factory.mktemp("runs")
    carts = {"endpoint": "GET /cart", "target": "/cart"}
    json_ = {"response_headers": (("Content-Type", "application/json"),)}
    captured = [exchange(n, session_id=f"s{n}", **body(n, price=12.5)) for n in range(COUNT)]
    captured += [
        exchange(COUNT + n, session_id=f"s{n}", **carts, **json_, **body(n)) for n in range(COUNT // 2)
    ]
    capture = dataset(home / "capture", "capture", captured)
    cart_rows = [
        result(COUNT + n, session_id=f"s{n}", endpoint="GET /cart", **body(n)) for n in range(COUNT // 2)
    ]
    lost = [result(n, session_id=f"s{n}", sent_ns=None, skipped="filtered", status=None) for n in range(4)]
    builds = {"old": staged, "again": staged, "new": candidate}
    for name, build in builds.items():
        rows = [result(n, session_id=f"s{n}", **build(n)) for n in range(4, COUNT)]
        dataset(
            home / name, "run", [*lost, *rows, *cart_rows], capture=str(capture), target="http://127.0.0.1:9"
        )
    return dossier_of(home / "old", home / "new", home / "again")


def test_drift_tells_status_shape_size_and_time(dossier: Dossier) -> None:
    products, cart = dossier.drift
    assert (products.endpoint, products.pairs, products.status, products.shape) == (
        "GET /products/{id}", 36, 9, 27,
    )  # fmt: skip
    assert products.statuses == "200 → 404 ×9"
    assert products.paths == ("$.note extra", "$.price type", "headers.x-latin missing")
    assert products.staged_bytes > 4 * products.captured_bytes
    assert (products.captured_ms, products.staged_ms) == (0.3, 0.9)
    assert products.example == exchange(4).exchange_id
    size = sum(len(json.dumps({"id": n})) for n in range(COUNT // 2)) / (COUNT // 2)
    assert cart == DriftRow("GET /cart", COUNT // 2, 0, 0, size, size, 0.3, 0.3)


def test_the_mix_is_that_of_the_capture_and_of_what_was_sent(dossier: Dossier) -> None:
    cart, products = dossier.mix
    assert (cart.endpoint, cart.captured, cart.sent[BASELINE]) == ("GET /cart", COUNT // 2, COUNT // 2)
    assert (products.endpoint, products.captured, products.sent[CANDIDATE]) == (
        "GET /products/{id}", COUNT, COUNT - 4,
    )  # fmt: skip


def test_errors_and_curves(dossier: Dossier) -> None:
    assert [(row.endpoint, row.kind, row.counts) for row in dossier.errors] == [
        ("GET /products/{id}", "500", {CANDIDATE: 18})
    ]
    old, new = dossier.curve(ALL, BASELINE), dossier.curve(ALL, CANDIDATE)
    assert old is not None
    assert new is not None
    assert (old.count, new.count) == (56, 38)  # 5xx left out
    median = old.at(0.5)
    assert median is not None
    assert (median.low, median.ms, median.high) == (0.3, 0.3, 0.9)


def test_a_status_comes_with_how_the_answers_begin(dossier: Dossier) -> None:
    finding = next(finding for finding in dossier.report.findings if finding.path == "status")
    old, new, differs = dossier.contexts[finding.id][0]
    assert old is not None
    assert new is not None
    assert (old.text, new.text, differs) == ("200", "500", True)
    right = [line.text for _, line, _ in dossier.contexts[finding.id] if line is not None]
    assert '  "error": "no such table"' in right
    assert dossier.requests[finding.examples[0].exchange_id].line.startswith("GET /products/")


def test_every_form_is_written_where_it_belongs(dossier: Dossier, tmp_path: Path) -> None:
    files = files_for(list(FILES), tmp_path / "out")
    write_reports(dossier, files)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES.values())
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no such table" in page
    assert "200 → 404 ×9" in page


def test_a_form_that_is_none_and_a_place_that_cannot_be(dossier: Dossier, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--form 'pdf': choose of html, json"):
        files_for(["pdf"], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        write_reports(dossier, {"html": tmp_path / "file" / "report.html"})
