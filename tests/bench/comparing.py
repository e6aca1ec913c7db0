"""The differ beside plain DeepDiff, on the same pairs of 1 KB JSON documents, on one core."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import orjson
from deepdiff import DeepDiff

from replay.diff.compare import body_differences, settings
from replay.diff.lift import lift
from replay.findings import Difference
from tests.bench.machine import GENERATOR_CORE, table

_HEADERS = (("Content-Type", "application/json"),)
Pair = tuple[bytes, bytes]


def speed(pairs: int) -> str:
    """Pairs per second, each pair parsed from its bytes."""
    os.sched_setaffinity(0, {GENERATOR_CORE})
    rows = []
    for name, made in (
        ("equal bytes", _equal),
        ("equal, keys in another order", _reordered),
        ("one field differs", _changed),
    ):
        documents = [made(_document(random.Random(n)), n) for n in range(pairs)]
        assert len(_compared(*documents[0])) == (made is _changed)
        ours = _rate(documents, _compared)
        plain = _rate(documents[: max(50, pairs // 40)], _deepdiff)
        rows.append([name, f"{ours:,.0f}", f"{plain:,.0f}", f"{ours / plain:,.0f}"])
    return table(("pairs of 1 KB JSON", "replay diff, pairs/s", "DeepDiff, pairs/s", "ratio"), rows)


def _compared(left: bytes, right: bytes) -> list[Difference]:
    return body_differences(lift(left, _HEADERS), lift(right, _HEADERS))


def _deepdiff(left: bytes, right: bytes) -> object:
    return DeepDiff(orjson.loads(left), orjson.loads(right), **settings())


def _rate(pairs: list[Pair], compare: Callable[[bytes, bytes], Any]) -> float:
    began = time.perf_counter()
    for left, right in pairs:
        compare(left, right)
    return len(pairs) / (time.perf_counter() - began)


def _document(chance: random.Random) -> dict[str, object]:
    def item(n: int) -> dict[str, object]:
        price = f"{chance.randint(1, 9999) / 100:.2f}"
        return {"id": n, "name": f"item {n}", "price": price, "tags": ["a", "b"]}

    return {
        "order": chance.randint(1, 10**9),
        "customer": {"id": chance.randint(1, 10**6), "name": "A. Customer", "city": "Aberdeen"},
        "items": [item(chance.randint(1, 10**5)) for _ in range(13)],
        "total": "190.50",
    }


def _equal(document: dict[str, object], _: int) -> Pair:
    body = orjson.dumps(document)
    return body, bytes(bytearray(body))


def _reordered(document: dict[str, object], _: int) -> Pair:
    return orjson.dumps(document), orjson.dumps(dict(reversed(document.items())))


def _changed(document: dict[str, object], n: int) -> Pair:
    return orjson.dumps(document), orjson.dumps({**document, "total": f"{n}.99"})
