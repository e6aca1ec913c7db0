"""Encryption at rest: nothing plain on disk, one clear error for a wrong key, other keys by a service."""

from __future__ import annotations

import base64
import os
import stat
import sys
from pathlib import Path

import msgpack
import pyarrow.parquet as pq
import pytest

from replay.errors import ConfigError, InputError, ReplayError
from replay.model import Exchange
from replay.store import metadata, sealing
from replay.store.compact import compact
from replay.store.journal import Journal, read_segment
from replay.store.reader import Dataset
from replay.store.writer import DatasetWriter
from tests.rows import exchange

SECRET = b"PLANTED-IN-THE-BODY"
ONE, TWO = "correct horse battery staple", "another key that is long enough"


def write(path: Path, rows: int = 50) -> list[Exchange]:
    exchanges = [exchange(number, response_body=SECRET, host="secret-host.test") for number in range(rows)]
    writer = DatasetWriter(path, "capture", source={}, settings={})
    for item in exchanges:
        writer.add(item)
    writer.close({"written": rows})
    return exchanges


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (sealing.KEY, sealing.KEY_FILE, sealing.KMS, sealing.KMS_KEY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(sealing.KEY, ONE)
    return monkeypatch


def test_a_dataset_comes_back_and_nothing_of_it_is_plain(tmp_path: Path, key: pytest.MonkeyPatch) -> None:
    written = write(tmp_path / "capture")
    data = on_disk(tmp_path / "capture")
    assert not [
        text for text in (SECRET, b"secret-host.test", b"response_body", ONE.encode()) if text in data
    ]
    dataset = Dataset.open(tmp_path / "capture")
    assert list(dataset.rows()) == written
    assert dataset.count == 50
    assert dataset.counts(("host",)) == {("secret-host.test",): 50}
    for part in dataset.parts:
        with pytest.raises(OSError, match="encrypted"):
            pq.read_table(part)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"is encrypted \(key [0-9a-f]{16}\): set \$REPLAY_ENCRYPTION_KEY"),
        ({sealing.KEY: TWO}, "is encrypted with another key"),
        ({sealing.KEY: "short"}, "is too short: use 16 characters"),
        ({sealing.KEY_FILE: "/nowhere"}, r"key file /nowhere .* cannot be read"),
        ({sealing.KMS: "nowhere"}, "write module:Class"),
        ({sealing.KMS: "no_such_module:Client"}, "cannot be imported"),
        ({sealing.KMS: "base64:Client"}, "base64 has no Client"),
        ({sealing.KMS: "tests.store.kms:Client"}, "is encrypted with another key"),
    ],
)
def test_a_wrong_key_is_one_clear_error(
    tmp_path: Path, key: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    write(tmp_path / "capture")
    key.delenv(sealing.KEY)
    for name, value in environment.items():
        key.setenv(name, value)
    with pytest.raises(ReplayError, match=message) as raised:
        list(Dataset.open(tmp_path / "capture").rows())
    assert "\n" not in str(raised.value)
    assert not any(text in str(raised.value) for text in (ONE, TWO))


def test_the_key_may_be_in_a_file_of_ones_own(tmp_path: Path, key: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(f"{ONE}\n", "utf-8")
    key.delenv(sealing.KEY)
    key.setenv(sealing.KEY_FILE, str(file))
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=f"open to others: chmod 600 {file}"):
        write(tmp_path / "capture")
    file.chmod(0o600)
    written = write(tmp_path / "capture")
    key.delenv(sealing.KEY_FILE)
    key.setenv(sealing.KEY, ONE)
    assert list(Dataset.open(tmp_path / "capture").rows()) == written


def test_the_key_may_be_in_a_service(tmp_path: Path, key: pytest.MonkeyPatch) -> None:
    key.delenv(sealing.KEY)
    key.setenv(sealing.KMS, "tests.store.kms:Client")
    key.setenv(sealing.KMS_KEY, "master-7")
    written = write(tmp_path / "capture")
    entry = metadata.load(tmp_path / "capture", "capture")["encryption"]
    assert base64.b64decode(entry["wrapped"])[:9] == b"master-7:"
    assert list(Dataset.open(tmp_path / "capture").rows()) == written
    key.setenv(sealing.KMS_KEY, "master-8")
    with pytest.raises(InputError, match="with another key"):
        Dataset.open(tmp_path / "capture")


def test_the_journal_is_sealed_and_a_crash_loses_nothing(tmp_path: Path, key: pytest.MonkeyPatch) -> None:
    metadata.create(tmp_path, "capture", source={}, settings={})
    written = exchange(1, response_body=SECRET)
    from dataclasses import astuple

    journal = Journal(tmp_path, "w0")
    journal.append(msgpack.packb(list(astuple(written))))
    journal.flush()
    (segment,) = tmp_path.glob("journal-*")
    assert SECRET not in segment.read_bytes()
    key.setenv(sealing.KEY, TWO)
    with pytest.raises(InputError, match="another key"):
        list(read_segment(segment))
    key.setenv(sealing.KEY, ONE)
    journal.close()
    assert compact(tmp_path, "capture") == 1
    assert list(Dataset.open(tmp_path).rows()) == [written]
    assert SECRET not in on_disk(tmp_path)


def test_a_changed_block_does_not_open(tmp_path: Path, key: pytest.MonkeyPatch) -> None:
    seal = sealing.Seal(bytes(32))
    sealed = seal.close(b"rows")
    assert seal.open(sealed) == b"rows"
    assert seal.close(b"rows") != sealed
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(InputError):
            seal.open(bytes(changed))


def test_datasets_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "capture")
        metadata.create(tmp_path / "run", "run", source={}, settings={})
        journal = Journal(tmp_path / "run", "w0")
        journal.append(msgpack.packb([]))
        journal.close()
    finally:
        os.umask(before)
    for path in (tmp_path / "capture", tmp_path / "run"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


def test_a_plain_dataset_needs_no_cryptography(tmp_path: Path) -> None:
    import subprocess

    write(tmp_path / "capture", rows=1)
    program = (
        "import sys; from pathlib import Path; from replay.store.reader import Dataset;"
        "list(Dataset.open(Path(sys.argv[1])).rows()); sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "capture"], timeout=60).returncode == 0
