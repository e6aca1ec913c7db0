"""The books of a capture: what became of everything that was seen, writer by writer, in capture.json.

    seen = written + sampled out + filtered + dropped + failed

Each writer keeps its own account; the dataset's books are their sum. A writer that crashed cannot close its
account any more: whoever comes next settles it, by counting the rows it left.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from replay.store import metadata
from replay.store.compact import recover
from replay.store.sealing import decryption_properties

KIND = "capture"
_PARTS = ("written", "sampled_out", "filtered", "dropped", "failed")


class Books:
    """One writer's account while it runs."""

    def __init__(self) -> None:
        self.written = 0
        self.sampled_out = 0
        self.filtered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.truncated = 0
        self._seen: int | None = None
        self._dropped: dict[str, int] = {}
        self._passed: dict[str, int] = {}

    def hear(self, totals: Mapping[str, Any]) -> None:
        """Totals from the proxy's side."""
        self._seen = totals["seen"]
        self._dropped = totals["dropped"]
        self._passed = totals["passed"]

    def totals(self) -> dict[str, Any]:
        """The books so far; an exchange still under way in the proxy is not yet seen."""
        return _balanced(
            {
                "written": self.written,
                "sampled_out": self.sampled_out,
                "filtered": self.filtered.total(),
                "dropped": sum(self._dropped.values()),
                "failed": self.failed.total(),
                "truncated": self.truncated,
                "filtered_by_reason": dict(self.filtered),
                "failed_by_reason": dict(self.failed),
                "dropped_by_reason": self._dropped,
                "passed": self._passed,
                "streams": dict(self.kinds),
            }
        )

    def close(self) -> dict[str, Any]:
        """The last books. What the proxy sent and the pipe did not deliver counts as dropped."""
        lost = (self._seen or 0) - self.totals()["seen"]
        if lost > 0:
            self._dropped = {**self._dropped, "lost on the way": lost}
        return self.totals()


def new_account(source: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in capture.json under a writer's name, to begin with."""
    return {
        "state": "open",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "source": dict(source),
        "books": Books().totals(),
        "redacted": {},
        "places": {},
    }


def keep(directory: Path, writer: str, account: Mapping[str, Any]) -> None:
    """Put a writer's account into capture.json, and the sum of all."""

    def change(meta: dict[str, Any]) -> None:
        meta.setdefault("writers", {})[writer] = dict(account)
        _add_up(meta)

    metadata.update(directory, KIND, change)


def settle(directory: Path, totals: Mapping[str, Any] | None = None) -> bool:
    """Close the accounts of writers that are gone; whether there was one.

    `totals` is what the proxy last said, if it outlived its only recorder.
    """
    writers = metadata.load(directory, KIND).get("writers", {})
    crashed = [name for name, account in writers.items() if _is_gone(account)]
    if not crashed:
        return False
    recover(directory, KIND)
    rows = {name: _rows_of(directory, name) for name in crashed}

    def change(meta: dict[str, Any]) -> None:
        for name in crashed:
            account = meta["writers"][name]
            account["state"] = "crashed"
            account["books"] = _settled(account["books"], rows[name], totals)
        _add_up(meta)

    metadata.update(directory, KIND, change)
    return True


def _settled(books: dict[str, Any], written: int, totals: Mapping[str, Any] | None) -> dict[str, Any]:
    books = {**books, "written": written}
    if totals is not None:
        known = written + books["sampled_out"] + books["filtered"] + books["failed"]
        reasons = Counter(totals["dropped"])
        lost = totals["seen"] - known - reasons.total()
        if lost > 0:
            reasons["lost with the recorder"] = lost
        books |= {"dropped_by_reason": dict(reasons), "dropped": reasons.total(), "passed": totals["passed"]}
    return _balanced(books)


def _balanced(books: Mapping[str, Any]) -> dict[str, Any]:
    return {"seen": sum(books[part] for part in _PARTS), **{k: v for k, v in books.items() if k != "seen"}}


def _rows_of(directory: Path, writer: str) -> int:
    return sum(_rows_in(path) for path in directory.glob(f"part-{writer}-*.parquet"))


def _rows_in(path: Path) -> int:
    properties = decryption_properties(path.parent)
    return int(pq.read_metadata(path, decryption_properties=properties).num_rows)


def _is_gone(account: Mapping[str, Any]) -> bool:
    """Whether a writer of this host never closed its books and lives no more."""
    if account["state"] != "open" or account["host"] != socket.gethostname():
        return False
    try:
        os.kill(account["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _add_up(meta: dict[str, Any]) -> None:
    accounts = list(meta["writers"].values())
    meta["books"] = _sum(account["books"] for account in accounts)
    meta["redacted"] = _sum(account["redacted"] for account in accounts)
    meta["places"] = _sum(account.get("places", {}) for account in accounts)
    meta["state"] = "open" if any(account["state"] == "open" for account in accounts) else "closed"
    meta["ended_at"] = metadata.now() if meta["state"] == "closed" else None


def _sum(books: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Books added up, entry by entry."""
    total: dict[str, Any] = {}
    for each in books:
        for name, value in each.items():
            if isinstance(value, dict):
                total[name] = dict(Counter(total.get(name, {})) + Counter(value))
            else:
                total[name] = total.get(name, 0) + value
    return total
