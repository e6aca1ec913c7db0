"""The key: made once, kept to its owner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from replay.errors import ConfigError
from replay.keys import VARIABLE, load_key


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_default_file_is_made_at_first_use(tmp_path: Path) -> None:
    key = load_key()
    path = tmp_path / "config" / "staging-replay" / "key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key() == key == load_key(path)
    assert len(key) == 32


def test_several_that_come_first_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load_key(tmp_path / "key"), range(8)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_the_environment_comes_before_the_default_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "0123456789abcdef")
    key = load_key()
    assert key == load_key() != load_key(tmp_path / "named")
    assert not (tmp_path / "config").exists()


def test_a_file_open_to_others_is_refused(tmp_path: Path) -> None:
    load_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(tmp_path / "key")


def test_a_short_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(ConfigError, match="too short"):
        load_key()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--key-file"):
        load_key(tmp_path / "file" / "key")
