"""A comparison on a Dask cluster says what one process says, to the byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.errors import InputError, ReplayError
from replay.report import json_
from replay.verbs import dask_cluster, partitions
from replay.verbs.diff import diff_runs
from tests.bench import pairs
from tests.diff.test_partitions import SETTINGS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as made:
        yield made


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    # Where the cuts are is decided here, not on the cluster.
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 1 << 20)
    monkeypatch.setattr(pairs, "_PART_ROWS", 1024)
    return [
        pairs.write(tmp_path / "baseline", 6_000, 0.5),
        pairs.write(tmp_path / "candidate", 6_000, 0.5, candidate=True),
        pairs.write(tmp_path / "control", 6_000, 0.5),
    ]


def test_the_report_is_the_same_to_the_byte(cluster: Any, runs: list[Path]) -> None:
    alone = json_.render(diff_runs(*runs, settings=SETTINGS, jobs=1))
    assert json_.render(diff_runs(*runs, settings=SETTINGS, dask=cluster.scheduler_address)) == alone
    assert json_.render(diff_runs(*runs, settings=SETTINGS, jobs=2)) == alone


def test_a_worker_that_dies_is_made_good(
    cluster: Any, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "compare", _deadly)
    marker = runs[0].parent / "died"
    monkeypatch.setattr(partitions.Partition, "located", lambda self: (self, str(marker)))
    monkeypatch.setattr(dask_cluster, "_check", lambda *_: None)
    alone = json_.render(diff_runs(*runs, settings=SETTINGS, jobs=1))
    assert json_.render(diff_runs(*runs, settings=SETTINGS, dask=cluster.scheduler_address)) == alone
    assert marker.exists()


def _deadly(task: tuple[partitions.Partition, str]) -> Any:
    """Compares, but the first process to come here dies."""
    partition, marker = task
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return partitions.compare(partition)
    os._exit(1)


def test_what_is_wrong_is_one_line(
    cluster: Any, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = cluster.scheduler_address
    monkeypatch.setattr(dask_cluster, "_CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no scheduler answers"):
        diff_runs(*runs, dask="tcp://127.0.0.1:1")
    monkeypatch.setattr(dask_cluster, "_CONNECT_S", 15)
    monkeypatch.setattr(dask_cluster, "__version__", "0.0.1")
    with pytest.raises(InputError, match="has staging-replay"):
        diff_runs(*runs, dask=address)
    monkeypatch.undo()
    elsewhere = [partitions.Partition((partitions.Source(tmp_path / "nowhere", "run"),), SETTINGS)]
    with pytest.raises(InputError, match="does not see"):
        list(dask_cluster.compared(elsewhere, address))


def test_an_error_in_a_partition_is_told_as_anywhere(cluster: Any, runs: list[Path]) -> None:
    candidate = runs[1]
    (candidate / "part-000009.parquet").write_bytes((candidate / "part-000001.parquet").read_bytes())
    with pytest.raises(ReplayError, match=r"the candidate holds exchange .* twice"):
        diff_runs(*runs[:2], dask=cluster.scheduler_address)
