"""A shop to ask without a socket, and one behind a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from replay.demo.answers import Request, Response, Shop, handle
from replay.demo.builds import OldBuild
from replay.demo.shop import Server

NOW = 1_700_000_000.0


class OpenShop:
    """A shop that time stands still in."""

    def __init__(self, build: type[OldBuild] = OldBuild, *, trust: bool = True, seed: int = 1) -> None:
        self.shop = Shop(build(), Random(seed), trust_tokens=trust, started=NOW - 5)

    def ask(self, method: str, target: str, form: Any = None, token: str | None = "t") -> Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.handle(method, target, headers, b"" if form is None else json.dumps(form).encode())

    def see(self, method: str, target: str, form: Any = None, token: str | None = "t") -> Any:
        return json.loads(self.ask(method, target, form, token).body)

    def handle(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Response:
        return handle(Request(method, target, headers, body), self.shop, NOW)


@pytest.fixture
def open_shop() -> type[OpenShop]:
    return OpenShop


@pytest.fixture
def serve_and() -> Callable[..., Any]:
    """`serve_and(build, client)`: runs the coroutine `client(port)` against a served shop; its result."""
    return _serve_and


def _serve_and(build: type[OldBuild], client: Callable[[int], Any], *, trust: bool = False) -> Any:
    async def both() -> Any:
        shop = Shop(build(), Random(3), trust_tokens=trust)
        server = Server(shop, query_seconds=0.0005)
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(server.serve("127.0.0.1", 0, stop, listening.set_result))
        try:
            return await client(await listening)
        finally:
            stop.set()
            await serving

    return asyncio.run(both())
