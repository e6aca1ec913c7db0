"""The files for containers: they parse, and say nothing to the tool that it does not understand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE, KUBERNETES = ROOT / "deploy" / "compose.yaml", ROOT / "deploy" / "kubernetes.yaml"


def services() -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Name, arguments of `replay`, and the whole of each container."""
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        yield name, service["command"], service
    for document in yaml.safe_load_all(KUBERNETES.read_text()):
        if document["kind"] in ("Job", "Deployment"):
            (container,) = document["spec"]["template"]["spec"]["containers"]
            assert container["command"] == ["replay"]
            yield container["name"], container["args"], container


@pytest.mark.parametrize(("name", "arguments", "container"), list(services()))
def test_commands_are_understood(name: str, arguments: list[str], container: dict[str, Any]) -> None:
    verb, *rest = arguments
    told = subprocess.run(
        [sys.executable, "-m", "replay", verb, "--help"],
        capture_output=True, text=True, check=True, timeout=60, env={"COLUMNS": "200", "NO_COLOR": "1"},
    ).stdout  # fmt: skip
    known = set(re.findall(r"--[a-z-]+", told))
    assert {word for word in rest if word.startswith("--")} <= known
    assert verb == ("run" if name == "master" else "worker")


@pytest.mark.parametrize(("name", "arguments", "container"), list(services()))
def test_images_are_of_a_version(name: str, arguments: list[str], container: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", container["image"])


def test_pods_may_do_little() -> None:
    documents = list(yaml.safe_load_all(KUBERNETES.read_text()))
    pods = [
        document["spec"]["template"]["spec"]
        for document in documents
        if "template" in document.get("spec", {})
    ]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        allowed = container["securityContext"]
        assert allowed["readOnlyRootFilesystem"]
        assert not allowed["allowPrivilegeEscalation"]
        assert allowed["capabilities"] == {"drop": ["ALL"]}
    (policy,) = [document for document in documents if document["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 5557}]
