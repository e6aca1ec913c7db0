"""The audit's judgement; that it is asked is `make audit`, which needs PyPI."""

from __future__ import annotations

from importlib.metadata import version

from tests.safety.audit import explained, judge

KNOWN = [{"ids": ["CVE-1", "GHSA-1"], "package": "a", "because": "it is not used"}]


def package(name: str, *ids: str) -> dict:
    return {"name": name, "version": "1", "vulns": [{"id": each, "fix_versions": ["2"]} for each in ids]}


def test_a_weakness_that_nobody_explained_fails() -> None:
    verdict = judge([package("a", "CVE-2")], KNOWN)
    assert verdict.code == 1
    assert verdict.lines[0] == "a 1: CVE-2, fixed by 2"


def test_what_is_explained_is_said_and_passes() -> None:
    verdict = judge([package("a", "GHSA-1"), package("b")], KNOWN)
    assert (verdict.code, verdict.lines[0]) == (0, "a 1: GHSA-1 stays: it is not used")


def test_an_exception_without_its_weakness_is_said() -> None:
    assert "no longer needed: the exception for a (CVE-1)" in judge([package("a")], KNOWN).lines


def test_what_could_not_be_asked_is_no_pass() -> None:
    assert judge([package("a"), {"name": "b", "skip_reason": "not found"}], KNOWN).code == 2


def test_every_exception_is_explained() -> None:
    for known in explained():
        assert version(known["package"])
        assert len(known["because"]) > 40
        assert known["ids"]
