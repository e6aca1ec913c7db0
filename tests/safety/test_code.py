"""What the code never does, read from the code; and that SECURITY.md tells of tests that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay.store.writer import DatasetWriter
from tests.rows import exchange, result

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "replay").rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "yaml", "ruamel", "plistlib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "ET.fromstring", "ET.parse", "ET.XML"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def called(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_data(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not FORBIDDEN_MODULES & set(imported(tree))
    for call in called(tree):
        assert ast.unparse(call.func) not in FORBIDDEN_CALLS
        assert not any(
            keyword.arg == "shell" and getattr(keyword.value, "value", True) for keyword in call.keywords
        )


def test_names_from_data_name_no_files(tmp_path: Path) -> None:
    """Whatever text the data brings, the files beside it are called as always."""
    evil = "../../evil\n;$(touch x)/.."
    capture = DatasetWriter(tmp_path / "capture", "capture", source={"files": [evil]}, settings={})
    capture.add(exchange(1, endpoint=evil, session_id=evil, connection_id=evil, target=evil, host=evil))
    capture.close({})
    run = DatasetWriter(tmp_path / "run", "run", source={"target": evil}, settings={})
    run.add(result(1, endpoint=evil, session_id=evil, error=evil))
    run.close({})
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"(capture|run)\.json|part-[0-9a-f]+-\d{6}\.parquet", name) for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"capture", "run"}


TABLE = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "SECURITY.md").read_text())


def test_security_names_tests() -> None:
    assert len(TABLE) > 25


@pytest.mark.parametrize(("file", "test"), TABLE, ids=[test for _, test in TABLE])
def test_every_promise_has_its_test(file: str, test: str) -> None:
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
