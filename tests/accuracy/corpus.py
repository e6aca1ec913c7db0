"""A service whose answers are known: documents with honest noise of every kind, and regressions planted in some.

Each endpoint has documents of its own, kinds of noise of its own at rates of its own, and at most one planted
regression, which touches a stated share of its requests. Everything follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from replay.diff.answers import Answer

Document = dict[str, Any]


@dataclass(slots=True)
class Reply:
    """An answer in the making."""

    status: int
    headers: dict[str, str]
    document: Document
    duration_ms: float
    body: bytes | None = None
    """Bytes in place of the document, where something broke them."""


Noise = Callable[[Reply, random.Random, float], None]
Fault = Callable[[Reply], None]


# Honest noise: what it does at which rates.


def _clock(reply: Reply, chance: random.Random, rate: float) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=chance.random() * 1e6)
    reply.document["generated_at"] = at.isoformat()


def _identifier(reply: Reply, chance: random.Random, rate: float) -> None:
    reply.headers["X-Trace"] = f"{chance.getrandbits(64):016x}"
    reply.document["request"] = {"id": f"{chance.getrandbits(128):032x}"}


def _shuffled(reply: Reply, chance: random.Random, rate: float) -> None:
    chance.shuffle(reply.document["tags"])


def _jitter(reply: Reply, chance: random.Random, rate: float) -> None:
    reply.document["score"] += chance.gauss(0, 1e-6)


def _rotating(reply: Reply, chance: random.Random, rate: float) -> None:
    reply.document["banner"] = chance.choice(["spring sale", "free delivery", "new in", "last days"])


def _sometimes(reply: Reply, chance: random.Random, rate: float) -> None:
    if chance.random() < rate:
        reply.document["cache"] = {"state": "miss", "age": chance.randrange(900)}


def _flaky(reply: Reply, chance: random.Random, rate: float) -> None:
    if chance.random() < 0.001:
        reply.status, reply.document = 503, {"error": "try again"}


def _dropping(reply: Reply, chance: random.Random, rate: float) -> None:
    if chance.random() < 0.001:
        reply.document.pop("related", None)


def _counter(reply: Reply, chance: random.Random, rate: float) -> None:
    reply.document["views"] += chance.randrange(3)


NOISE: dict[str, Noise] = {
    "clock": _clock,
    "identifier": _identifier,
    "shuffled list": _shuffled,
    "float jitter": _jitter,
    "rotating content": _rotating,
    "now and then": _sometimes,
    "rare failures": _flaky,
    "rare gaps": _dropping,
    "counter": _counter,
}


# Regressions: what is planted, and where it shows.


def _rename(reply: Reply) -> None:
    reply.document["in_stock"] = reply.document.pop("available")


def _retype(reply: Reply) -> None:
    reply.document["price"] = str(reply.document["price"])


def _wrong(reply: Reply) -> None:
    reply.document["total"] = round(reply.document["total"] * 1.1 + 1, 2)


def _drop(reply: Reply) -> None:
    reply.document["items"].pop()


def _reorder(reply: Reply) -> None:
    reply.document["steps"].reverse()


def _precision(reply: Reply) -> None:
    reply.document["rate"] = round(reply.document["rate"], 2)


def _null(reply: Reply) -> None:
    reply.document["customer"]["city"] = None


def _encoding(reply: Reply) -> None:
    name = reply.document["customer"]["name"]
    reply.document["customer"]["name"] = name.encode().decode("latin-1")


def _header(reply: Reply) -> None:
    reply.headers.pop("Cache-Control")


def _fail(reply: Reply) -> None:
    reply.status, reply.document = 500, {"error": "internal"}


def _gone(reply: Reply) -> None:
    reply.status, reply.document = 404, {"error": "not found"}


def _truncate(reply: Reply) -> None:
    whole = orjson.dumps(reply.document)
    reply.body = whole[: len(whole) * 2 // 3]


def _slow(reply: Reply) -> None:
    reply.duration_ms *= 1.8


@dataclass(frozen=True, slots=True)
class Planted:
    """One kind of regression: what breaks, and the beginnings of the paths at which it may show."""

    name: str
    break_it: Fault
    shows_at: tuple[str, ...]
    everywhere: bool = False
    """Whether it only makes sense for all requests."""


FAULTS = (
    Planted("renamed field", _rename, ("$.in_stock", "$.available")),
    Planted("changed type", _retype, ("$.price",)),
    Planted("wrong value", _wrong, ("$.total",)),
    Planted("dropped element", _drop, ("$.items",)),
    Planted("reordered list", _reorder, ("$.steps",)),
    Planted("lost precision", _precision, ("$.rate",)),
    Planted("null", _null, ("$.customer.city",)),
    Planted("broken encoding", _encoding, ("$.customer.name",)),
    Planted("lost header", _header, ("headers.cache-control",)),
    Planted("500", _fail, ("status",)),
    Planted("404", _gone, ("status",)),
    Planted("truncated body", _truncate, ("$",)),
    Planted("slower", _slow, ("p50", "p95", "p99"), everywhere=True),
)

SHARES = (0.01, 0.02, 0.05, 0.2, 1.0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of the corpus: its noise, and what its new build breaks for which share of requests."""

    name: str
    requests: int
    noise: tuple[str, ...]
    rate: float
    duration_ms: float
    planted: Planted | None
    share: float


def endpoints(seed: int, count: int, requests: int) -> list[Endpoint]:
    """Half of them break in the new build, in turn by every kind and share."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        planted = FAULTS[(number // 2 + seed) % len(FAULTS)] if number % 2 else None
        share = SHARES[(number // 2 + 3 * seed) % len(SHARES)]
        made.append(
            Endpoint(
                name=f"GET /v{number}/{{id}}",
                requests=requests + chance.randrange(requests // 2),
                noise=tuple(chance.sample(sorted(NOISE), chance.randrange(2, 6))),
                rate=chance.choice([0.003, 0.01, 0.05, 0.2, 0.5]),
                duration_ms=chance.choice([8.0, 20.0, 60.0]),
                planted=planted,
                share=1.0 if planted is not None and planted.everywhere else share,
            )
        )
    return made


def answers(endpoint: Endpoint, seed: int, *, broken: bool) -> Iterator[Answer]:
    """What one build answers, run with noise of this seed; `broken` is the new build."""
    chance = random.Random(f"{endpoint.name} {seed}")
    hit = _hit(endpoint) if broken and endpoint.planted else frozenset()
    for number in range(endpoint.requests):
        reply = _document(endpoint, number)
        reply.duration_ms *= chance.lognormvariate(0, 0.3)
        for name in endpoint.noise:
            if reply.status == 200:
                NOISE[name](reply, chance, endpoint.rate)
        if number in hit and reply.status == 200:
            assert endpoint.planted is not None
            endpoint.planted.break_it(reply)
        yield _answer(endpoint, number, reply)


def _hit(endpoint: Endpoint) -> frozenset[int]:
    """The requests that meet the regression: exactly the share, rounded up."""
    count = -(-int(endpoint.requests * endpoint.share * 1000) // 1000)
    return frozenset(random.Random(endpoint.name).sample(range(endpoint.requests), max(1, count)))


def _document(endpoint: Endpoint, number: int) -> Reply:
    chance = random.Random(f"{endpoint.name} {number}")
    items = [
        {"id": chance.randrange(10**6), "name": f"item {n}", "quantity": chance.randrange(1, 9)}
        for n in range(4)
    ]
    document = {
        "id": number,
        "price": chance.randrange(100, 99999) / 100,
        "total": chance.randrange(1000, 999999) / 100,
        "rate": chance.randrange(10**7, 10**8) / 10**8,
        "available": chance.random() < 0.8,
        "customer": {"name": chance.choice(["Zoë Müller", "José Peña", "Åsa Öberg"]), "city": "Malmö"},
        "items": items,
        "steps": ["packed", "sent", "handed over", f"seen {number}"],
        "tags": ["blue", "kitchen", "gift", "heavy", "new"],
        "related": [chance.randrange(10**4) for _ in range(3)],
        "score": chance.random(),
        "views": 100 + number,
    }
    headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "max-age=60"}
    return Reply(200, headers, document, endpoint.duration_ms)


def _answer(endpoint: Endpoint, number: int, reply: Reply) -> Answer:
    body = orjson.dumps(reply.document) if reply.body is None else reply.body
    return Answer(
        exchange_id=f"{number:012d}",
        lap=0,
        session_id=f"s{number % 97}",
        endpoint=endpoint.name,
        status=reply.status,
        response_headers=tuple(reply.headers.items()),
        response_body=body,
        response_size=len(body),
        truncated=False,
        error=None,
        skipped=None,
        due_ns=number * 1_000_000,
        sent_ns=number * 1_000_000,
        duration_ns=int(reply.duration_ms * 1e6),
    )
