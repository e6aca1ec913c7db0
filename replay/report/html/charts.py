"""Charts as static SVG, drawn by pygal and stripped to what a page needs.

pygal brings a style sheet, a script and tooltips to each chart. A filter of its own kind takes them away, so
that a chart is two or three kB, follows the page's colours in the dark as well, and reads as one image.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from replay.findings import Fidelity
from replay.report import words
from replay.report.dossier import BASELINE, CANDIDATE, CONTROL, LatencyCurve
from replay.report.html.views import LatencyView

WIDTH, HEIGHT = 380, 200
_CLASSES = {BASELINE: "old", CONTROL: "again", CANDIDATE: "new"}

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """Points to draw as a line, or as the outline of an area; the style sheet knows its `name`."""

    name: str
    points: Sequence[Point]
    area: bool = False


def percentiles(view: LatencyView) -> Markup | None:
    """Percentile curves of an endpoint, a band for the interval of each; `None` where there are none to draw."""
    curves = [curve for curve in view.curves if len(curve.points) > 1]
    if not curves:
        return None
    labels = [f"p{100 * point.quantile:g}" for point in curves[0].points]
    bands = [Series(f"band {_CLASSES[curve.role]}", _band(curve), area=True) for curve in curves]
    lines = [
        Series(_CLASSES[curve.role], [(place, point.ms) for place, point in enumerate(curve.points)])
        for curve in curves
    ]
    last = ", ".join(f"{curve.role} {words.milliseconds(curve.points[-1].ms)}" for curve in curves)
    return _svg(
        [*bands, *lines],
        f"Percentiles of the time to answer, {view.name}; at {labels[-1]}: {last}",
        x_labels=[{"label": label, "value": place} for place, label in enumerate(labels)],
        value_formatter=words.milliseconds,
    )


def _band(curve: LatencyCurve) -> list[Point]:
    """Out along the lower bounds and back along the upper, as far as both are known."""
    known = [
        (place, point.low, point.high)
        for place, point in enumerate(curve.points)
        if point.low is not None and point.high is not None
    ]
    out = [(float(place), low) for place, low, _ in known]
    back = [(float(place), high) for place, _, high in reversed(known)]
    return [*out, *back] if len(known) > 1 else []


def rate(role: str, fidelity: Fidelity) -> Markup | None:
    """Requests a second over a run: as the capture's schedule wanted them (an area), and as sent (a line)."""
    if len(fidelity.curve) < 2:
        return None
    top = max(max(wanted, sent) for _, wanted, sent in fidelity.curve)
    return _svg(
        [
            Series("band old", [(at, wanted) for at, wanted, _ in fidelity.curve], area=True),
            Series("old", [(at, wanted) for at, wanted, _ in fidelity.curve]),
            Series("new", [(at, sent) for at, _, sent in fidelity.curve]),
        ],
        f"Requests per second over the {role} run, at most {top:,.0f}: as scheduled, and as sent",
        value_formatter=lambda value: f"{value:,.0f}/s",
        x_value_formatter=lambda value: f"{value:,.0f} s",
    )


def _pygal() -> Any:
    """pygal, without the finder for map plug-ins that it leaves in `sys.meta_path`, and with the standard library's
    trees, which the filter below knows, where lxml is installed too.

    That finder speaks the protocol that Python gave up in 3.12: each import that fails would warn of it.
    """
    import pygal  # here, so that only who renders a page pays for it
    from pygal.etree import etree

    etree.to_etree()

    sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return pygal


def _svg(series: Sequence[Series], label: str, **options: Any) -> Markup:
    chart = _pygal().XY(
        width=WIDTH, height=HEIGHT, margin=2, margin_right=14, margin_top=8, js=(), css=(), no_prefix=True,
        disable_xml_declaration=True, show_legend=False, show_dots=False, include_x_axis=True,
        min_scale=3, max_scale=5, truncate_label=-1, **options,
    )  # fmt: skip
    chart.uuid = ""  # otherwise a random one
    drawn = [one for one in series if one.points]
    for one in drawn:
        chart.add(one.name, list(one.points), fill=one.area)
    chart.add_xml_filter(_stripper(label, [one.name for one in drawn]))
    text = chart.render(is_unicode=True)
    return Markup(re.sub(r"(\.\d)\d+", r"\1", text))  # noqa: S704  ElementTree has escaped it


def _stripper(label: str, names: Sequence[str]) -> Callable[[Any], Any]:
    """A filter that keeps the plot alone, and gives the series their names as classes."""

    def strip(root: Any) -> Any:
        plot = next(node for node in root.iter("g") if node.get("class") == "plot")
        for child in list(root):
            root.remove(child)
        root.append(plot)
        del root.attrib["xmlns"], root.attrib["id"]
        root.attrib.update({"class": "chart", "role": "img", "aria-label": words.clean(label)})
        for parent in list(plot.iter()):
            for child in [node for node in parent if node.tag in ("title", "rect")]:
                parent.remove(child)
        drawn = [node for node in plot.iter("g") if (node.get("class") or "").startswith("series")]
        for node, name in zip(drawn, names, strict=True):
            node.set("class", name)
            for path in node.iter("path"):
                del path.attrib["class"]
        return root

    return strip
