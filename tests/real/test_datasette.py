"""Two releases of Datasette, an application that nobody here wrote: what changed between them is known.

Real requests to the old release go through the real capture, and are replayed to the old release (three
times, for the noise and for a comparison of it with itself) and to the new one. The differences that must be
found are those that Datasette's own changelog and upgrade guide name (`CONFIRMED`).
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from replay.config import RunSettings
from replay.findings import FAIL, NOISE, REGRESSION, SUSPECT, Report
from replay.verbs.binding import rules_of
from replay.verbs.capture import CaptureProcess, CaptureSettings
from replay.verbs.diff import diff_runs
from replay.verbs.run import replay_run

pytestmark = pytest.mark.real

OLD, NEW = "0.64.8", "1.0a19"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A difference that Datasette's documents announce: in which release, and how it shows."""

    release: str
    says: str
    endpoint: str
    path: str
    kind: str


OBJECTS = "the default JSON representation: rows is a list of objects, beside ok, next and truncated"
SQL = "requests with a ?sql= parameter to the old endpoint will be redirected to /db/-/query"
METADATA = "the /metadata.json endpoint has been removed"
TOKENS = "new allow_signed_tokens and max_signed_tokens_ttl settings"
CONFIRMED = (
    Confirmed("1.0a3", OBJECTS, "GET /trees/trees.json", "$.rows[*]", "type"),
    Confirmed("1.0a3", OBJECTS, "GET /trees/trees.json", "$.ok", "extra"),
    Confirmed("1.0a3", OBJECTS, "GET /trees/trees.json", "$.columns", "missing"),
    Confirmed("1.0a3", OBJECTS, "GET /trees/trees.json", "$.filtered_table_rows_count", "missing"),
    Confirmed("1.0a3", OBJECTS, "GET /trees/species.json", "$.rows[*]", "type"),
    Confirmed("1.0a14", SQL, "GET /trees.json", "status", "status"),
    Confirmed("1.0a14", METADATA, "GET /-/metadata.json", "status", "status"),
    Confirmed("1.0a0", TOKENS, "GET /-/settings.json", "$.allow_signed_tokens", "extra"),
    Confirmed("1.0a0", TOKENS, "GET /-/settings.json", "$.max_signed_tokens_ttl", "extra"),
)
UNCHANGED = ("GET /trees/trees.csv", "GET /trees/tags.json")
"""1.0a3: "the various ?_shape= options continue to work as before"; and CSV is not mentioned at all."""

CLIENTS, ROUNDS = 4, 10


# --- the servers


def environment(release: str) -> Path:
    """The Python of a virtual environment with that release; made at first use, in half a minute.

    Kept outside the repository between runs of the tests; processes that want the same one wait.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "staging-replay-tests"
    home = base / f"datasette-{release}-py{sys.version_info.major}.{sys.version_info.minor}"
    home.mkdir(parents=True, exist_ok=True)
    python, complete = home / "venv" / "bin" / "python", home / "complete"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", home / "venv"], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"datasette=={release}"], check=True, stderr=subprocess.PIPE)
            complete.touch()
    return python


@contextmanager
def datasette(release: str, database: Path) -> Iterator[str]:
    """Serve the database with that release; gives the URL."""
    # Facets are suggested within a time limit: without a generous one, a busy machine suggests fewer.
    options = ["--setting", "facet_suggest_time_limit_ms", "5000"]
    command = [environment(release), "-m", "datasette", "serve", "--immutable", database, "--port", "0"]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=database.parent,
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"running on (http://[\d.:]+)", line):
                break
        else:
            pytest.fail(f"Datasette {release} did not start: {''.join(lines)}")
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(process.stderr.read)  # or a full pipe would stop the server
            try:
                yield found[1]
            finally:
                process.terminate()
                rest.result()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def make_database(path: Path) -> Path:
    """Trees and their species, the same bytes of data every time."""
    species = (
        ("Oak", 30.0, 0),
        ("Beech", 35.0, 0),
        ("Pine", 25.0, 1),
        ("Holly", 10.0, 1),
        ("Birch", 18.0, 0),
    )
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "create table species (id integer primary key, name text, height real, evergreen int)"
        )
        database.execute(
            "create table trees (id integer primary key, species_id integer references species(id),"
            " street text, planted text, note text)"
        )
        database.execute("create table tags (name text primary key, uses integer)")
        for number, row in enumerate(species, 1):
            database.execute("insert into species values (?, ?, ?, ?)", (number, *row))
        for number in range(1, 241):
            street = f"{('Main', 'High', 'Park', 'Mill')[number % 4]} Street {number}"
            planted = f"{1900 + number % 120}-04-{1 + number % 28:02d}"
            note = None if number % 7 else f"note {number}, with <b>markup</b> and a “quote”"
            database.execute(
                "insert into trees values (?, ?, ?, ?, ?)", (number, 1 + number % 5, street, planted, note)
            )
        database.executemany("insert into tags values (?, ?)", [("old", 3), ("rare", 1), ("a/b", 2)])
    return path


# --- the traffic


TARGETS = (
    "/trees/trees.json?_size=5",
    "/trees/trees.json?_size=5&species_id={species}",
    "/trees/trees.json?_size=3&_next={tree}",
    "/trees/trees/{tree}.json",
    "/trees/species.json",
    "/trees/tags.json?_shape=array",
    "/trees/trees.csv?_size=20&_next={tree}",
    "/trees.json?sql=select+count(*)+from+trees+where+id+%3C+{tree}",
    "/trees/trees?_size=5&_next={tree}",
    "/-/metadata.json",
    "/-/settings.json",
    "/-/actor.json",
)
"""What a person with a browser and a script or two would fetch."""


def browse(host: str, port: int, number: int) -> int:
    """One reader, on one connection: all targets in any order, a few times; the number of answers."""
    random, answers = Random(number), 0
    with closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
        for _ in range(ROUNDS):
            for target in random.sample(TARGETS, len(TARGETS)):
                path = target.format(tree=random.randint(1, 240), species=random.randint(1, 5))
                connection.request("GET", path, headers={"User-Agent": f"reader {number}"})
                with connection.getresponse() as answer:
                    assert answer.status == 200, (path, answer.status)
                    answers += len(answer.read()) > 0
    return answers


# --- the whole way


@dataclass(frozen=True, slots=True)
class Runs:
    """One recording of the old release, replayed: to it three times, and to the new one."""

    directory: Path

    def report(self, candidate: str) -> Report:
        return diff_runs(self.directory / "old", self.directory / candidate, self.directory / "old-again")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    directory = tmp_path_factory.mktemp("datasette")
    database = make_database(directory / "trees.db")
    capture = record(database, directory)
    for name, release in (("old", OLD), ("old-again", OLD), ("old-thrice", OLD), ("new", NEW)):
        with datasette(release, database) as target:
            summary = replay_run(capture, target, directory / name, RunSettings(speed=2))
        assert summary.books["answered"] == summary.books["planned"] == CLIENTS * ROUNDS * len(TARGETS)
    return Runs(directory)


def record(database: Path, directory: Path) -> Path:
    """A few people at once reading through the recording proxy."""
    with datasette(OLD, database) as upstream:
        settings = CaptureSettings(
            out=directory / "capture",
            upstream=upstream,
            listen="127.0.0.1:0",
            key_file=directory / "key",
        )
        capture = CaptureProcess(settings)
        host, port = capture.start()
        try:
            with ThreadPoolExecutor(CLIENTS) as readers:
                answers = sum(readers.map(lambda number: browse(host, port, number), range(CLIENTS)))
        finally:
            summary = capture.stop()
    assert summary.books["written"] == answers
    return settings.out


def test_the_old_release_answers_as_itself(runs: Runs) -> None:
    report = runs.report("old-thrice")
    assert report.judged(REGRESSION) == ()
    assert report.judged(SUSPECT) == ()
    # Not because nothing differs: the time that queries took does, in JSON and in the footer of the HTML page.
    assert {finding.path for finding in report.judged(NOISE)} == {
        "$.query_ms",
        '$.html.body[*].footer[*]["#text"]',
    }


def test_the_new_release_differs_as_its_changelog_says(runs: Runs) -> None:
    report = runs.report("new")
    found = {(f.endpoint, f.path, f.kind) for f in report.judged(REGRESSION)}
    missed = [change for change in CONFIRMED if (change.endpoint, change.path, change.kind) not in found]
    assert missed == []
    assert report.verdict == FAIL


def test_bodies_that_the_changelog_calls_unchanged_are_unchanged(runs: Runs) -> None:
    changed = {f.endpoint for f in runs.report("new").findings if f.path.startswith("$")}
    assert changed.isdisjoint(UNCHANGED)


def test_reading_without_a_state_binds_nothing(runs: Runs) -> None:
    assert rules_of(runs.directory / "capture") == ()
