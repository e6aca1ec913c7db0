"""The report as Markdown, for a pull request's comment or a step's summary.

GitHub takes 1 MiB of summary and 65,536 characters of comment: what is too long is cut between rows, the
least important last, and says so. Text from the builds goes into code spans that it cannot leave.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from replay.findings import ACCEPTED, FAIL, INVALID, NOISE, PASS, REGRESSION, SUSPECT, Finding, LatencyRow
from replay.report import words
from replay.report.dossier import Dossier
from replay.report.gate import breach

SUMMARY_BYTES = 1 << 20
COMMENT_BYTES = 65_000

_MARKS = {PASS: "✅", FAIL: "❌", INVALID: "⚠️"}
_CUT = "\n*Cut here: the whole report is longer than this page takes; see the HTML or JSON report.*\n"


def render(dossier: Dossier, limit: int = SUMMARY_BYTES) -> str:
    """The report as GitHub-flavoured Markdown of at most `limit` bytes of UTF-8."""
    kept: list[str] = []
    left = limit - len(_CUT.encode())
    for line in _lines(dossier):
        left -= len(line.encode()) + 1
        if left < 0:
            return "\n".join(kept) + "\n" + _closed(kept) + _CUT
        kept.append(line)
    return "\n".join(kept) + "\n"


def _closed(kept: Sequence[str]) -> str:
    opened = sum(line.startswith("<details>") for line in kept) - sum(line == "</details>" for line in kept)
    return "\n</details>\n" * opened


def _lines(dossier: Dossier) -> Iterator[str]:
    report = dossier.report
    yield f"## {_MARKS[report.verdict]} {dossier.title}: {report.verdict}"
    yield ""
    yield from (f"- {_plain(reason)}" for reason in report.reasons)
    yield f"- {_plain(words.alike(report))}"
    yield from (f"- note: {_plain(note)}" for note in report.notes)
    yield from _findings("Regressions", report.judged(REGRESSION), dossier)
    yield from _latency([row for row in report.latency if row.judgement != NOISE])
    yield from _findings("Suspects: different, but too few to tell", report.judged(SUSPECT), dossier)
    yield from _limits(dossier)
    yield from _fidelity(dossier)
    yield from _accepted(report.judged(ACCEPTED))
    yield from _noise(report.judged(NOISE))
    yield from _books(dossier)


def _findings(title: str, findings: Sequence[Finding], dossier: Dossier) -> Iterator[str]:
    if not findings:
        return
    yield ""
    yield f"### {title} ({len(findings):,})"
    yield ""
    yield "| id | endpoint | where | kind | share | noise | old → new |"
    yield "|---|---|---|---|---:|---:|---|"
    for finding in findings:
        old_new = ""
        if finding.examples:
            example = finding.examples[0]
            old_new = f"{code(example.left[:80])} → {code(example.right[:80])}"
        cells = (
            code(finding.id),
            code(finding.endpoint),
            code(finding.path),
            finding.kind,
            words.share(finding.differing, finding.pairs),
            words.noise(finding),
            old_new,
        )
        yield f"| {' | '.join(cells)} |"
    shown = next((finding.examples[0] for finding in findings if finding.examples), None)
    if shown is not None:
        yield ""
        yield f"One of them side by side: {code(f'replay show {shown.exchange_id} ' + ' '.join(dossier.paths))}"


def _latency(rows: Sequence[LatencyRow]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield "### Time to answer"
    yield ""
    yield "| endpoint | at | old | new | ratio | judgement |"
    yield "|---|---|---:|---:|---:|---|"
    for row in rows:
        old, new = words.milliseconds(row.baseline_ms), words.milliseconds(row.candidate_ms)
        cells = (code(row.endpoint), f"p{100 * row.quantile:g}", old, new, words.ratio(row), row.judgement)
        yield f"| {' | '.join(cells)} |"


def _limits(dossier: Dossier) -> Iterator[str]:
    if not dossier.limits:
        return
    yield ""
    yield "### Limits"
    yield ""
    yield "| limit | found | at most | |"
    yield "|---|---:|---:|---|"
    for check in dossier.limits:
        found, limit = words.measure(check.value, check.unit), words.measure(check.limit, check.unit)
        yield f"| {_plain(check.name)} | {found} | {limit} | {'✅' if check.held else '❌'} |"


def _fidelity(dossier: Dossier) -> Iterator[str]:
    found = dossier.fidelities()
    if not found:
        return
    yield ""
    yield "### Fidelity"
    yield ""
    for role, fidelity in found:
        if fidelity.faithful:
            yield f"- {role}: faithful ({len(fidelity.checks)} checks held)"
        else:
            yield f"- ⚠️ {role}: {_plain('; '.join(breach(check) for check in fidelity.breaches))}"


def _accepted(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield ""
    yield f"### Accepted ({len(findings):,})"
    yield ""
    for finding in findings:
        place = f"{code(finding.endpoint)} {code(finding.path)} {finding.kind}"
        yield f"- {code(finding.id)} {place}: {_plain(finding.reason)}"


def _noise(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield ""
    yield f"<details><summary>Noise: the old build does it too ({len(findings):,})</summary>"
    yield ""
    for finding in findings:
        share = words.percent(finding.differing, finding.pairs)
        place = f"{code(finding.endpoint)} {code(finding.path)} {finding.kind}"
        yield f"- {place} {share} (old build {words.noise(finding)})"
    yield ""
    yield "</details>"


def _books(dossier: Dossier) -> Iterator[str]:
    report = dossier.report
    yield ""
    yield f"<sub>{_plain(words.books('candidate', report.book))}</sub>"
    if report.control_book is not None:
        yield f"<sub>{_plain(words.books('control', report.control_book))}</sub>"


_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@-])")


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    return (
        _SPECIAL.sub(r"\\\1", words.clean(text)).replace("\\-", "-").replace("\\(", "(").replace("\\)", ")")
    )


def code(text: str) -> str:
    """A code span that its text cannot end, also inside a table: a pipe is written as an escape there."""
    text = words.clean(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}"
