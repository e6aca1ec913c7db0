"""The report as one HTML page: no outside requests, readable without a script, bounded in size.

Templates say how it looks, `cards` and `views` what is in it, `charts` draws. Whatever comes from the builds is text:
Jinja escapes it, `words.clean` takes away what could steer a reader's eye, and the page's own policy lets
no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from replay.findings import REGRESSION, SUSPECT
from replay.report import words
from replay.report.dossier import Dossier
from replay.report.html import charts, views
from replay.report.html.cards import Card, groups, ranked

MAX_BYTES = 1_900_000
"""Of the page. Findings take what the rest leaves: in full as far as that goes, then in brief, then counted."""

OPENED = 3
"""Findings that are open when the page is."""


def render(dossier: Dossier) -> str:
    """The dossier as an HTML document, well under 2 MB whatever is in it."""
    env = _environment()
    cards = ranked(dossier)
    page = partial(env.get_template("page.html.j2").render, _around(dossier, cards))
    left = MAX_BYTES - _bytes(page(groups=[], left_out=0))
    shown = _shown_within(env, cards, left)
    return page(groups=groups(shown), left_out=len(cards) - len(shown))


def _around(dossier: Dossier, cards: list[Card]) -> dict[str, Any]:
    """All that the page's template wants but the findings."""
    script = _asset("script.js")
    return {
        "view": views.page(dossier, cards),
        "latency": [
            (view, charts.percentiles(view) if view.charted else None) for view in views.latency(dossier)
        ],
        "rates": [(role, charts.rate(role, fidelity)) for role, fidelity in dossier.fidelities()],
        "style": _asset("style.css"),
        "script": script,
        "script_hash": _hash(script),
    }


def _shown_within(env: Environment, cards: list[Card], limit: int) -> list[tuple[Card, Markup]]:
    """Cards as markup of at most `limit` bytes together.

    The first are in full whatever the others need, up to a quarter of the room; then as many as possible are
    there at all; what room is left makes them full, again from the first on.
    """
    template = env.get_template("finding.html.j2")

    def made(place: int, *, full: bool) -> Markup:
        opened = full and place < OPENED and cards[place].judgement in (REGRESSION, SUSPECT)
        return Markup(template.render(card=cards[place], full=full, opened=opened))  # noqa: S704  escaped there

    shown = _while_room((made(place, full=True) for place in range(len(cards))), limit // 4)
    first = len(shown)
    left = limit - sum(map(_bytes, shown))
    shown += _while_room((made(place, full=False) for place in range(first, len(cards))), left)
    left -= sum(map(_bytes, shown[first:]))
    for place in range(first, len(shown)):
        full = made(place, full=True)
        left -= _bytes(full) - _bytes(shown[place])
        if left < 0:
            break
        shown[place] = full
    return list(zip(cards, shown, strict=False))


def _while_room(texts: Iterable[Markup], room: int) -> list[Markup]:
    """The first texts that fit in so many bytes."""
    taken = []
    for text in texts:
        room -= _bytes(text)
        if room < 0:
            break
        taken.append(text)
    return taken


def _bytes(text: str) -> int:
    return len(text.encode())


@lru_cache(maxsize=1)
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("replay.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"lines": _lines, "measure": words.measure}
    return env


def _harmless(value: Any) -> Any:
    """Every text a template writes passes through here, before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return words.clean(value)
    return value


def _lines(text: str) -> Markup:
    """A text whose line breaks mean something."""
    return Markup("\n").join(escape(words.clean(line)) for line in text.split("\n"))


def _asset(name: str) -> Markup:
    return Markup(files("replay.report.html").joinpath("templates", name).read_text("utf-8"))  # noqa: S704


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
