"""Stateless traffic that others recorded: no value in it comes from an earlier answer, and none is said to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.send.learning import learn
from replay.store.reader import Dataset
from replay.verbs.binding import rules_of
from replay.verbs.importing import import_files
from tests.rows import exchange
from tests.send.captures import write

DATA = Path(__file__).parents[1] / "data"
FILES = sorted([*DATA.glob("har/*.har"), *DATA.glob("flows/*.mitm")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_binds_in_a_recording(file: Path, tmp_path: Path) -> None:
    import_files([file], tmp_path / "capture", key_file=tmp_path / "key")
    assert rules_of(tmp_path / "capture") == ()


def test_nothing_binds_in_all_of_them_together(tmp_path: Path) -> None:
    import_files(FILES, tmp_path / "capture", key_file=tmp_path / "key")
    assert rules_of(tmp_path / "capture") == ()


@pytest.mark.parametrize(("sessions", "least", "most"), [(200, 25, 100), (3, 40, 80), (1, 40, 60)])
def test_of_a_long_capture_a_part_is_enough(tmp_path: Path, sessions: int, least: int, most: int) -> None:
    rows = []
    for number in range(400):
        session, token = f"s{number // 2 % sessions}", f"{number // 2:08x}9f3c2b7e41d0"
        known = {"session_id": session, "duration_ns": 1000, "request_headers": (), "response_body": b""}
        if number % 2 == 0:
            body = json.dumps({"token": token}).encode()
            known |= {"endpoint": "GET /in", "target": "/in", "response_body": body}
        else:
            known |= {"endpoint": "GET /me", "target": "/me", "request_headers": (("Authorization", token),)}
        rows.append(exchange(number, **known))
    dataset = Dataset.open(write(tmp_path / "capture", rows))
    whole, part = learn(dataset), learn(dataset, most=100)
    assert [(rule.maker, rule.user) for rule in part] == [("GET /in $.token", "* header authorization")]
    assert whole[0].count == 200
    assert least < part[0].count < most
