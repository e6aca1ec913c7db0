"""The HTML report: whatever is in it, one well-formed page that asks nothing of anybody and obeys no guest."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from replay.findings import ACCEPTED, JUDGEMENTS, KINDS, NOISE, REGRESSION, SUSPECT, Example, LatencyRow
from replay.report.dossier import ALL, BASELINE, CANDIDATE, Asking, Dossier, MixRow
from replay.report.exchange import Line
from replay.report.html import render
from replay.report.html.cards import marked

from .dossiers import BROKEN, curve, dossier, fidelity, hostile, run
from .reports import EMPTY, EXAMPLE, FULL, UNFAITHFUL, UNTRUSTED, finding

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """The elements of a page; complains of what is not closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


CASES = {
    "full": dossier(),
    "report alone": Dossier(FULL),
    "nothing differs": dossier(EMPTY),
    "invalid": dossier(UNFAITHFUL),
    "untrusted": dossier(UNTRUSTED),
    "hostile": hostile(),
    "no runs, no times": Dossier(EMPTY),
}


@pytest.mark.parametrize("name", CASES)
def test_a_page_is_well_formed_and_asks_nobody(name: str) -> None:
    text = render(CASES[name])
    page = Page(text)
    assert text.startswith("<!doctype html>")
    for tag, attrs in page.elements:
        for attribute in ("src", "href", "action", "srcset", "poster", "data", "xlink:href"):
            value = attrs.get(attribute)
            assert value is None or value.startswith(("#", "data:")), f"<{tag} {attribute}={value}>"
        assert not [attribute for attribute in attrs if attribute.startswith("on")]
    assert len(page.all("script")) == 1
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[0]
    assert "url(" not in style
    assert "@import" not in style
    ids = Counter(attrs["id"] for _, attrs in page.elements if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    inside = {attrs["href"] for attrs in page.all("a")} - {f"#{name}" for name in ids}
    assert inside == set()
    text.encode("utf-8")


def test_what_a_build_says_is_text_and_nothing_else() -> None:
    text = render(hostile())
    page = Page(text)
    assert page.all("img") == []
    assert "alert(1)" in page.text
    plain = page.text + "".join(str(value) for _, attrs in page.elements for value in attrs.values())
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", plain
    )


def test_the_policy_lets_the_pages_own_script_run_and_no_other() -> None:
    policies = [attrs["content"] for attrs in Page(render(dossier())).all("meta") if "http-equiv" in attrs]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "'unsafe-eval'" not in policies[0]


def test_the_verdict_and_why_come_first() -> None:
    page = Page(render(dossier()))
    title = page.text.index("Fail: Shop 2.0")
    assert (
        title < page.text.index("2 regressions on 1 endpoint; 1 endpoint slower") < page.text.index("Search")
    )
    assert "Pass no regression in 620 exchanges" in Page(render(dossier(EMPTY))).text
    assert "Invalid 20 of 100 exchanges have no pair" in Page(render(dossier(UNFAITHFUL))).text


def test_findings_are_ranked_and_say_what_a_developer_asks() -> None:
    page = Page(render(dossier()))
    cards = [attrs for attrs in page.all("details") if "data-kind" in attrs]
    assert [(card["data-judgement"], card["data-kind"]) for card in cards] == [
        (REGRESSION, "status"), (REGRESSION, "type"), (REGRESSION, "slower"), (SUSPECT, "value"), (NOISE, "value"),
    ]  # fmt: skip
    assert ["open" in card for card in cards] == [True, True, True, False, False]
    for told in (
        "$.items[*].price", "12/310"[:2] + " of 310 exchanges", "old against old: 0 %", "the old build never did this",
        f"replay show {EXAMPLE.exchange_id} runs/old runs/new runs/again", "10× slower",
    ):  # fmt: skip
        assert told in page.text


@pytest.mark.parametrize("judgement", JUDGEMENTS)
def test_every_judgement_and_kind_has_its_words(judgement: str) -> None:
    findings = tuple(finding(judgement, f"$.{kind}", kind, id=kind) for kind in KINDS)
    slower = (replace(FULL.latency[0], judgement=judgement),)
    page = Page(render(dossier(replace(FULL, findings=findings, latency=slower))))
    cards = [attrs for attrs in page.all("details") if "data-kind" in attrs]
    assert {card["data-kind"] for card in cards} == set(KINDS)
    assert {card["data-judgement"] for card in cards} == {judgement}


def test_the_times_of_an_endpoint_are_one_finding_for_each_judgement() -> None:
    rows = [replace(FULL.latency[0], quantile=q, ratio=r) for q, r in ((0.5, 2.0), (0.95, 10.0))]
    accepted = replace(rows[0], quantile=0.99, judgement=ACCEPTED, reason="until 2027-01-31: known")
    page = Page(render(dossier(replace(FULL, findings=(), latency=(*rows, accepted)))))
    cards = [attrs for attrs in page.all("details") if "data-kind" in attrs]
    assert [card["data-judgement"] for card in cards] == [REGRESSION, ACCEPTED]
    assert f"finding {rows[0].id} (p50), {rows[1].id} (p95)" in page.text
    assert f"finding {accepted.id} " in page.text
    assert "until 2027-01-31: known" in page.text


def test_every_part_is_there_when_it_has_something_to_say() -> None:
    mixed = replace(dossier(), limits=(BROKEN,))
    text = Page(render(mixed)).text
    for told in (
        "Limits", "✗ broken", "Latency", "Load and fidelity", "How faithful the runs were", "0.4 ms", "Lag", "Mix",
        "Errors", "GET /search", "Staging and production", "200 → 404 ×2", "replay show x-1 runs/old",
        "800 B → 640 B", "ignore $.seen", "matched nothing", "balance", "15 candidate: missing",
    ):  # fmt: skip
        assert told in text, told


def test_a_run_that_was_not_faithful_says_what_to_change() -> None:
    unfaithful = replace(
        dossier(UNFAITHFUL), runs=(run(BASELINE), replace(run(CANDIDATE), fidelity=fidelity(BROKEN)))
    )
    text = Page(render(unfaithful)).text
    assert "✗ 80 ms" in text
    assert "use more workers" in text
    assert "1 of 2runs faithful" in text.replace(" runs", "runs")


def test_books_that_do_not_balance_say_so() -> None:
    text = Page(render(replace(dossier(), runs=(replace(run(BASELINE), answered=7),)))).text
    assert "do NOT balance" in text


@pytest.mark.parametrize(
    ("old", "new", "old_marked", "new_marked"),
    [
        ("12.5", '"12.50"', ["12.5"], ['"12.50"']),
        ('"total": 331.16,', '"total": 315.92,', ["331.16"], ["315.92"]),
        ("status 200", "status 500", ["200"], ["500"]),
        ("alpha beta", "alpha beta gamma", [], [" gamma"]),
        ("a same b", "a same b", [], []),
        ("aa", "aaa", ["aa"], ["aaa"]),
        ("", "x", [], ["x"]),
        ("(absent)", "false", ["(absent)"], ["false"]),
    ],
)
def test_what_changed_is_marked_by_whole_words(
    old: str, new: str, old_marked: list[str], new_marked: list[str]
) -> None:
    left, right = marked(old, new)
    assert ("".join(text for text, _ in left), "".join(text for text, _ in right)) == (old, new)
    assert [text for text, changed in left if changed] == old_marked
    assert [text for text, changed in right if changed] == new_marked


def test_old_and_new_stand_side_by_side() -> None:
    rows = (
        (Line('  "id": 1,', "$.id"), Line('  "id": 1,', "$.id"), False),
        (Line('  "price": 12.5', "$.price"), Line('  "price": "12.50"', "$.price"), True),
    )
    text = render(replace(dossier(), contexts={FULL.findings[0].id: rows}))
    assert "<del>  &#34;price&#34;: <mark>12.5</mark></del>" in text
    assert "<ins>  &#34;price&#34;: <mark>&#34;12.50&#34;</mark></ins>" in text


def many(count: int, text: str, judgement: str = REGRESSION, slow: bool = True) -> Dossier:
    """Findings with long texts everywhere."""
    findings = tuple(
        finding(
            judgement, f"$.{text[:300]}.f{number}", id=f"{number:08x}", endpoint=f"GET /{text[:300]}/{number}",
            reason=text[:200],
            examples=tuple(Example(f"x-{number}", 0, text, text, text[::-1]) for _ in range(3)),
        )
        for number in range(count)
    )  # fmt: skip
    rows = tuple((Line(text, "a"), Line(text[::-1], "a"), True) for _ in range(7))
    slower = tuple(
        LatencyRow(f.endpoint, 0.95, 9, 1.0, 2.0, 2.0, 1.5, 3.0, 1.0, SUSPECT, text) for f in findings
    )
    full = dossier(replace(FULL, findings=findings, latency=slower if slow else ()))
    return replace(
        full,
        curves=tuple(curve(f.endpoint, role, 5.0) for f in findings for role in (BASELINE, CANDIDATE)),
        errors=tuple(replace(full.errors[0], endpoint=f.endpoint) for f in findings),
        mix=tuple(MixRow(f.endpoint, 1, {BASELINE: 1}) for f in findings),
        drift=tuple(replace(full.drift[0], endpoint=f.endpoint) for f in findings),
        requests={f"x-{number}": Asking(text, text * 4) for number in range(count)},
        contexts={f.id: rows for f in findings[:200]},
    )


@pytest.mark.parametrize("text", ["word " * 80, "\"'<>&" * 80, "\ud800\u202e" * 200])
def test_a_thousand_findings_with_everything_stay_below_2_mb(text: str) -> None:
    page = render(many(1000, text))
    assert len(page.encode()) < 2_000_000
    assert len([attrs for attrs in Page(page).all("details") if "data-kind" in attrs]) > 150
    assert page.count('class="sides"') > 5  # the first are in full, whatever the others need


def test_a_thousand_plain_findings_are_all_there_and_the_first_in_full() -> None:
    text = render(many(1000, "price", slow=False))
    assert len(text.encode()) < 2_000_000
    cards = [attrs for attrs in Page(text).all("details") if "data-kind" in attrs]
    assert sum(card["data-kind"] == "value" for card in cards) == 1000
    assert "more findings" not in text


def test_findings_for_which_there_is_no_room_are_counted() -> None:
    text = render(many(3000, "word " * 40))
    assert len(text.encode()) < 2_000_000
    left_out = re.search(r"([\d,]+) more findings are in the JSON report", text)
    assert left_out is not None
    cards = [attrs for attrs in Page(text).all("details") if "data-kind" in attrs]
    assert len(cards) + int(left_out[1].replace(",", "")) == 6000


def test_charts_are_static_one_image_each_and_the_same_every_time() -> None:
    full = dossier()
    text = render(full)
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 2 + 3  # all endpoints and one, and the rate of three runs
    for chart in charts:
        assert 'role="img" aria-label="' in chart
        assert "script" not in chart
        assert "http" not in chart
        assert len(chart) < 5000
    assert text == render(full)


def test_an_endpoint_with_open_intervals_gets_its_curve_without_a_band() -> None:
    def opened(role: str) -> Dossier:
        one = curve(ALL, role, 5.0)
        return replace(one, points=tuple(replace(point, high=None) for point in one.points))  # type: ignore[return-value]

    text = render(replace(dossier(), curves=(opened(BASELINE), opened(CANDIDATE))))  # type: ignore[arg-type]
    chart = re.findall(r"<svg.*?</svg>", text, re.DOTALL)[0]
    assert 'class="old"' in chart
    assert "band" not in chart


def test_the_command_line_does_without_templates_and_charts() -> None:
    program = "import replay.cli, sys; print([name for name in ('jinja2', 'pygal') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_rendering_leaves_the_import_system_as_it_was() -> None:
    assert "<svg" in render(dossier())
    assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)
