"""`replay import`: one capture from many files, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.errors import InputError, UsageError
from replay.store.reader import Dataset
from replay.verbs.importing import import_files

DATA = Path(__file__).parent.parent / "data"
FILES = sorted(path for path in DATA.glob("*/*") if path.parent.name in ("har", "flows"))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_KEY", "0123456789abcdef")


def test_every_real_file_becomes_one_capture(tmp_path: Path) -> None:
    summary = import_files(FILES, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out", kind="capture")
    assert summary.taken == dataset.count == 15
    assert summary.not_taken == {}
    assert dataset.meta["books"] == summary.books
    assert summary.books["seen"] == summary.books["written"] + summary.books["filtered"] == 15
    assert dataset.meta["state"] == "closed"
    rows = list(dataset.rows())
    assert [row.started_at for row in rows] == sorted(row.started_at for row in rows)
    assert "PATCH /api/users/{id}" in {row.endpoint for row in rows}


def test_secrets_are_redacted_on_the_way_in(tmp_path: Path) -> None:
    path = tmp_path / "a.har"
    path.write_text((DATA / "har/reqres.in.har").read_text().replace("pistol", "hunter2hunter2"))
    summary = import_files([path], tmp_path / "out")
    assert summary.redacted["json"] >= 1
    rows = list(Dataset.open(tmp_path / "out").rows())
    assert b"hunter2hunter2" not in b"".join(row.request_body or b"" for row in rows)


def test_importing_again_gives_the_same_rows(tmp_path: Path) -> None:
    import_files(FILES, tmp_path / "a")
    import_files(list(reversed(FILES)), tmp_path / "b")
    a, b = (list(Dataset.open(tmp_path / name).rows(order_by=["exchange_id"])) for name in "ab")
    assert a == b


def test_one_bad_file_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "bad.har").write_text("{")
    with pytest.raises(InputError, match=r"bad\.har"):
        import_files([FILES[0], tmp_path / "bad.har"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(FILES[0].read_bytes())
    with pytest.raises(UsageError, match="same file"):
        import_files([FILES[0], tmp_path / "copy"], tmp_path / "out")


def test_no_file_and_a_directory_in_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        import_files([], tmp_path / "out")
    import_files(FILES[:1], tmp_path / "out")
    with pytest.raises(InputError, match="already holds"):
        import_files(FILES[:1], tmp_path / "out")


def test_routes_come_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "replay.toml").write_text('routes = ["/api/{anything}/*"]\n')
    import_files([DATA / "har/reqres.in.har"], tmp_path / "out", config=tmp_path / "replay.toml")
    assert "PATCH /api/{anything}/*" in {row.endpoint for row in Dataset.open(tmp_path / "out").rows()}
