"""A tab of its own in Locust's web UI: each worker's books and lag while the run is on.

Workers send their figures along with Locust's own statistics, every few seconds; the master keeps the last of
each. A process without workers shows its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

KEY = "replay"

_COLUMNS = {
    "worker": "Worker",
    "started": "Taken up",
    "under_way": "Under way",
    "answered": "Answered",
    "failed": "Failed",
    "skipped": "Skipped",
    "late": "Sent > 10 ms late",
    "lag_max_ms": "Largest lag (ms)",
}

Figures = dict[str, Any]


class Live:
    """The last figures of every worker, by its name; `own` tells those of this process."""

    def __init__(self, own: Callable[[], Iterable[Figures]]) -> None:
        self._of: dict[str, Figures] = {}
        self._own = own

    def hear(self, told: Iterable[Figures]) -> None:
        """Take in what a process tells of its workers."""
        self._of.update((figures["worker"], figures) for figures in told)

    def forget(self) -> None:
        """A new run begins."""
        self._of.clear()

    def stats(self) -> list[dict[str, Any]]:
        """The rows in the form that Locust's page asks for."""
        self.hear(self._own())
        return [{"key": KEY, "stats": [self._of[name] for name in sorted(self._of)]}]


def show_in(web_ui: Any, live: Live) -> None:
    """Add the tab, and its rows to what the page asks for every two seconds."""
    from flask import request

    arguments = web_ui.template_args
    arguments.setdefault("extended_tabs", []).append({"title": "Replay", "key": KEY})
    arguments.setdefault("extended_tables", []).append(
        {"key": KEY, "structure": [{"key": key, "title": title} for key, title in _COLUMNS.items()]}
    )

    def extend(response: Any) -> Any:
        if request.path == "/stats/requests" and response.is_json:
            told = response.get_json()
            told["extended_stats"] = [*told.get("extended_stats", []), *live.stats()]
            response.set_data(json.dumps(told))
        return response

    web_ui.app.after_request(extend)
