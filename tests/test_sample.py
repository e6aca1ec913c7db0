"""The capture that ships: it opens, its books balance, and the query of the README works on it."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from replay.store.reader import Dataset

ROOT = Path(__file__).parents[1]
SHOP = ROOT / "captures" / "shop"


def test_the_readmes_query_counts_the_shops_endpoints() -> None:
    query = re.search(r'duckdb -c "(.+)"', (ROOT / "README.md").read_text())
    assert query is not None
    counts = dict(duckdb.sql(query[1].replace("captures/shop", str(SHOP))).fetchall())
    assert sum(counts.values()) == Dataset.open(SHOP, "capture").count
    assert {"POST /login", "POST /cart/items", "GET /orders/{id}"} <= set(counts)


def test_it_needs_no_place_to_write() -> None:
    before = sorted(SHOP.iterdir())
    rows = list(Dataset.open(SHOP, "capture").rows())
    assert len(rows) == Dataset.open(SHOP, "capture").meta["books"]["written"]
    assert sorted(SHOP.iterdir()) == before
