"""What goes to a store, in which order, and what happens while it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.capture.recorder import Recorder, Settings
from replay.errors import InputError
from replay.store import metadata, remote, uploader
from replay.store.delivering import delivered
from replay.store.reader import Dataset
from replay.store.uploader import FULL_FILE, Uploader
from tests.send.captures import steady


def test_parts_go_before_the_metadata_that_tells_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = steady(tmp_path / "capture", 20, 1)
    order: list[str] = []
    put = remote.Store.put

    def noted(self: remote.Store, name: str, data: bytes) -> None:
        order.append(name.partition("-")[0])
        put(self, name, data)

    monkeypatch.setattr(remote.Store, "put", noted)
    made = Uploader(capture, f"file://{tmp_path}/store", keep=True, parts_only=False)
    made.step(1)
    assert order == ["part", "capture.json"]
    made.step(1)
    assert order == ["part", "capture.json"]  # nothing is new
    metadata.update(capture, "capture", lambda meta: meta.update(title="x"))
    made.step(1)
    assert order == ["part", "capture.json", "capture.json"]
    copy = remote.readable(f"file://{tmp_path}/store")
    assert Dataset.open(copy, "capture").count == 20


def test_parts_of_a_capture_go_once_they_are_there(tmp_path: Path) -> None:
    capture = steady(tmp_path / "capture", 20, 1)
    Uploader(capture, f"file://{tmp_path}/store", keep=False, parts_only=False).step(1)
    assert not list(capture.glob("part-*"))
    assert len(list((tmp_path / "store").glob("part-*"))) == 1


def test_what_waits_for_a_store_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = steady(tmp_path / "capture", 20, 1)
    waiting = Uploader(capture, f"file://{tmp_path}/store", keep=False, parts_only=False)
    monkeypatch.setattr(uploader, "BOUND_BYTES", 500)
    waiting.watch_bound()
    assert (capture / FULL_FILE).exists()
    monkeypatch.setattr(uploader, "BOUND_BYTES", 1 << 30)
    waiting.watch_bound()
    assert not (capture / FULL_FILE).exists()


def test_beyond_the_bound_exchanges_are_counted_and_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_KEY", "0123456789abcdef0123456789abcdef")
    recorder = Recorder(Settings(str(tmp_path / "capture")))
    (tmp_path / "capture" / FULL_FILE).touch()
    recorder.tend()
    recorder.take([])
    (tmp_path / "capture" / FULL_FILE).unlink()
    recorder.tend()
    books = recorder.close()
    assert books["failed_by_reason"] == {"the store is away, and what waits for it has reached its bound": 1}
    assert metadata.load(tmp_path / "capture", "capture")["state"] == "closed"


def test_an_address_is_written_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = f"file://{tmp_path}/store/run"
    out = remote.writable(address)
    with delivered(out), pytest.raises(InputError, match="another process"), delivered(out):
        pass
    assert not out.exists()  # nothing was written


def test_what_an_address_is_told_as(tmp_path: Path) -> None:
    assert remote.address_of(tmp_path) == str(tmp_path)
    assert remote.is_remote("s3://b/x")
    assert not remote.is_remote("captures/s3")
    assert remote.outbox("s3://b/x") == remote.outbox("s3://b/x") != remote.outbox("s3://b/y")
