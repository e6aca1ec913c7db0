"""`make audit`: PyPI's advisories for every installed package, less the exceptions that are explained.

Exit 1 for a weakness that nobody has explained, 2 where it could not be asked about every package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")


class Verdict(NamedTuple):
    """What there is to say, line by line, and the exit code."""

    lines: list[str]
    code: int


def explained(path: Path = EXCEPTIONS) -> list[dict[str, Any]]:
    """The exceptions: `ids`, `package`, `because`."""
    return list(tomllib.loads(path.read_text())["exception"])


def judge(dependencies: list[dict[str, Any]], exceptions: list[dict[str, Any]]) -> Verdict:
    """pip-audit's account of each package, in the light of the exceptions."""
    lines, needed, code = [], set(), 0
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    for each in dependencies:
        for weakness in each.get("vulns", ()):
            names = {weakness["id"], *weakness.get("aliases", ())}
            place = next((i for i, known in enumerate(exceptions) if names & set(known["ids"])), None)
            if place is None:
                fixed = ", ".join(weakness.get("fix_versions", ())) or "nothing yet"
                lines.append(f"{each['name']} {each['version']}: {weakness['id']}, fixed by {fixed}")
                code = 1
            else:
                needed.add(place)
                lines.append(
                    f"{each['name']} {each['version']}: {weakness['id']} stays: {exceptions[place]['because']}"
                )
    if skipped:
        lines.append(f"not known to PyPI, so not audited: {len(skipped)} of {len(dependencies)} packages")
        return Verdict(lines, code or 2)
    for place, known in enumerate(exceptions):
        if place not in needed:
            lines.append(f"no longer needed: the exception for {known['package']} ({known['ids'][0]})")
    return Verdict([*lines, f"{len(dependencies)} packages audited"], code)


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)
    if not done.stdout.strip():
        print(done.stderr.strip().splitlines()[-1:] or "pip-audit said nothing")
        return 2
    mine = [each for each in json.loads(done.stdout)["dependencies"] if each["name"] != "staging-replay"]
    verdict = judge(mine, explained())
    print("\n".join(verdict.lines))
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
