"""The report as JUnit XML, which every CI server reads: one case per endpoint, one for fidelity, one for limits.

Held to the Jenkins (xunit) and to the Ant schema: one suite, attributes of both, at most one outcome in a
case and nothing else, system-out and system-err at the end. Where the run was invalid nothing was judged,
so endpoints are skipped and the fidelity case is an error.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from replay.findings import FAIL, INVALID, NOISE, REGRESSION, SUSPECT, Finding, LatencyRow, Report
from replay.report import words
from replay.report.dossier import Dossier

MAX_TEXT = 20_000
"""Characters of one failure's text: servers keep them all in memory."""

_SUITE = "replay"


def render(dossier: Dossier) -> str:
    """The report as JUnit XML text."""
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite")
    _properties(suite, dossier)
    cases = [_fidelity(dossier), *_limits(dossier), *_endpoints(dossier)]
    suite.extend(cases)
    report = dossier.report
    ET.SubElement(suite, "system-out").text = _summary(report)
    ET.SubElement(suite, "system-err")
    outcomes = [case.find(kind) is not None for kind in ("failure", "error", "skipped") for case in cases]
    failures, errors, skipped = (sum(outcomes[i * len(cases) :][: len(cases)]) for i in range(3))
    suite.attrib.update(
        name=_SUITE,
        timestamp=(dossier.made_at or "1970-01-01T00:00:00")[:19],
        hostname="localhost",
        tests=str(len(cases)),
        failures=str(failures),
        errors=str(errors),
        skipped=str(skipped),
        time=f"{dossier.seconds:.3f}",
        id="0",
        package=_SUITE,
    )
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _properties(suite: ET.Element, dossier: Dossier) -> None:
    properties = ET.SubElement(suite, "properties")
    told = {
        "verdict": dossier.report.verdict,
        "capture": dossier.capture or "",
        **words.sides(dossier.report),
    }
    for name, value in told.items():
        ET.SubElement(properties, "property", name=name, value=_text(value) or "-")


def _case(name: str, group: str = "endpoints") -> ET.Element:
    return ET.Element("testcase", classname=f"{_SUITE}.{group}", name=_text(name), time="0")


def _outcome(case: ET.Element, kind: str, message: str, text: str = "") -> ET.Element:
    outcome = ET.SubElement(case, kind, message=_text(message)[:500])
    if kind != "skipped":
        outcome.set("type", case.get("classname", _SUITE))
    outcome.text = _text(text)[:MAX_TEXT] or None
    return case


def _fidelity(dossier: Dossier) -> ET.Element:
    case = _case("fidelity", "run")
    report = dossier.report
    if report.verdict == INVALID:
        return _outcome(case, "error", "; ".join(report.reasons), "\n".join(report.reasons))
    return case


def _limits(dossier: Dossier) -> list[ET.Element]:
    """One case for each limit of a gate that has no endpoint of its own to stand at."""
    cases = []
    for check in dossier.limits:
        case = _case(check.name, "limits")
        found, limit = words.measure(check.value, check.unit), words.measure(check.limit, check.unit)
        if not check.held:
            _outcome(case, "failure", f"{check.name}: {found}, limit {limit}")
        cases.append(case)
    return cases


def _endpoints(dossier: Dossier) -> list[ET.Element]:
    report = dossier.report
    findings: dict[str, list[Finding]] = {}
    for finding in report.findings:
        findings.setdefault(finding.endpoint, []).append(finding)
    latency: dict[str, list[LatencyRow]] = {}
    for row in report.latency:
        latency.setdefault(row.endpoint, []).append(row)
    names = sorted({row.endpoint for row in report.endpoints} | set(findings) | set(latency))
    return [_endpoint(dossier, name, findings.get(name, []), latency.get(name, [])) for name in names]


def _endpoint(dossier: Dossier, name: str, findings: list[Finding], latency: list[LatencyRow]) -> ET.Element:
    case = _case(name)
    broken = [line(finding) for finding in findings if finding.judgement == REGRESSION]
    broken += [slower(row) for row in latency if row.judgement == REGRESSION]
    rest = [line(finding) for finding in findings if finding.judgement == SUSPECT]
    if dossier.report.verdict == INVALID:
        return _outcome(case, "skipped", "the run was not faithful enough to judge")
    if broken and dossier.report.verdict == FAIL:
        more = f" (and {len(broken) - 1:,} more)" if len(broken) > 1 else ""
        return _outcome(
            case, "failure", broken[0] + more, "\n".join([*broken, *rest, *_commands(dossier, findings)])
        )
    return case


def _summary(report: Report) -> str:
    """What a passing suite has to say besides: the verdict, and what was found and broke no limit."""
    found = [
        f"{finding.endpoint}: {line(finding)}" for finding in report.findings if finding.judgement != NOISE
    ]
    head = [f"{report.verdict.upper()}  {'; '.join(report.reasons)}", words.alike(report)]
    return _text("\n".join([*head, *found]))[:MAX_TEXT] + "\n"


def line(finding: Finding) -> str:
    """A finding in one line: `$.price type in 320/331 = 97 % (regression): 12.5 → "12.50"`."""
    text = f"{finding.path} {finding.kind} in {words.share(finding.differing, finding.pairs)} ({finding.judgement})"
    if finding.examples:
        example = finding.examples[0]
        text += f": {example.left} → {example.right}"
    return words.clean(text)


def slower(row: LatencyRow) -> str:
    """A slowed endpoint in one line."""
    old, new = words.milliseconds(row.baseline_ms), words.milliseconds(row.candidate_ms)
    return f"p{100 * row.quantile:g} {old} → {new}, {words.ratio(row)} ({row.judgement})"


def _commands(dossier: Dossier, findings: list[Finding]) -> list[str]:
    first = next((finding.examples[0] for finding in findings if finding.examples), None)
    return ["", f"replay show {first.exchange_id} {' '.join(dossier.paths)}"] if first else []


def _text(text: str) -> str:
    """Text that XML 1.0 can hold: `words.clean` line by line."""
    return "\n".join(words.clean(part) for part in text.split("\n"))
