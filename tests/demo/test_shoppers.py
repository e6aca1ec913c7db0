"""The crowd: what it asks, that every kind of request comes often enough, and that failures are counted."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from replay.demo import shop as shop_module
from replay.demo.answers import ROUTES, Request, Response, Shop, handle
from replay.demo.builds import OldBuild
from replay.demo.shoppers import Crowd, Tally, go_shopping

ServeAnd = Callable[..., Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Request, int]]:
    """Every request that reaches a shop, with the status it got."""
    requests: list[tuple[Request, int]] = []

    def listen(request: Request, shop: Shop, now: float) -> Response:
        response = handle(request, shop, now)
        requests.append((request, response.status))
        return response

    monkeypatch.setattr(shop_module, "handle", listen)
    return requests


def shop_with(crowd: Crowd) -> Callable[[int], Any]:
    async def client(port: int) -> Tally:
        return await go_shopping("127.0.0.1", port, crowd)

    return client


def endpoint(request: Request) -> str:
    path = request.target.partition("?")[0]
    known = [f"{method} {pattern.pattern}" for method, pattern, _ in ROUTES if pattern.fullmatch(path)]
    return next(name for name in known if name.startswith(request.method))


def test_a_full_crowd_asks_for_everything_often_enough(
    serve_and: ServeAnd, asked: list[tuple[Request, int]]
) -> None:
    tally = serve_and(OldBuild, shop_with(Crowd(think=0.001)))
    assert tally.lost == 0
    assert set(tally.statuses) == {200, 201, 404, 409}
    assert tally.requests == len(asked)
    endpoints = Counter(endpoint(request) for request, _ in asked)
    del endpoints["GET /health"]  # once in a tenth of a second, however fast the crowd
    assert len(endpoints) == len(ROUTES) - 1
    assert min(endpoints.values()) >= 40
    assert sum("(2m" in request.target for request, _ in asked) >= 40
    assert 1500 <= tally.requests <= 2500


def test_a_crowd_of_one_seed_wants_the_same_things(
    serve_and: ServeAnd, asked: list[tuple[Request, int]]
) -> None:
    crowds = []
    for _ in range(2):
        asked.clear()
        serve_and(OldBuild, shop_with(Crowd(shoppers=3, visits=1, think=0.001)))
        # The numbers of orders are the shop's own, drawn anew each time.
        wanted = ((r.headers["user-agent"], re.sub(r"/orders/.+", "/orders/*", r.target)) for r, _ in asked)
        crowds.append(sorted(pair for pair in wanted if pair[1] != "/health"))
    assert crowds[0] == crowds[1]


def test_each_shopper_is_a_client_of_its_own(serve_and: ServeAnd, asked: list[tuple[Request, int]]) -> None:
    serve_and(OldBuild, shop_with(Crowd(shoppers=4, visits=1, think=0.001)))
    agents = {request.headers["user-agent"] for request, _ in asked}
    assert len(agents) == 5  # with the probe
    inside = [request for request, _ in asked if re.match("/(cart|checkout|orders)", request.target)]
    assert (
        {"cookie" in r.headers for r in inside}
        == {"authorization" in r.headers for r in inside}
        == {True, False}
    )


def test_a_shop_that_is_gone_is_counted_and_no_error() -> None:
    async def nobody() -> int:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return port

    tally = asyncio.run(go_shopping("127.0.0.1", asyncio.run(nobody()), Crowd(2, visits=1, think=0.001)))
    assert tally.lost == tally.requests > 10
