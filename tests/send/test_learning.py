"""Stateless traffic that others recorded: no value in it comes from an earlier answer, and none is said to."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.verbs.binding import rules_of
from replay.verbs.importing import import_files

DATA = Path(__file__).parents[1] / "data"
FILES = sorted([*DATA.glob("har/*.har"), *DATA.glob("flows/*.mitm")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_binds_in_a_recording(file: Path, tmp_path: Path) -> None:
    import_files([file], tmp_path / "capture", key_file=tmp_path / "key")
    assert rules_of(tmp_path / "capture") == ()


def test_nothing_binds_in_all_of_them_together(tmp_path: Path) -> None:
    import_files(FILES, tmp_path / "capture", key_file=tmp_path / "key")
    assert rules_of(tmp_path / "capture") == ()
