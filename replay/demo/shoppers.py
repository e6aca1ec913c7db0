"""Shoppers: people with sessions and think times, who make the traffic that is worth recording.

Each shopper is one client: an own TCP connection kept alive, an own User-Agent, and a number of visits in
which to log in, look around, fill a cart and perhaps buy. What they do is drawn from a seeded source, so two
crowds of the same seed want the same things; when exactly, and which tokens and order numbers they get, is
up to the shop. Half of them are apps (bearer tokens), half are browsers (cookies, gzip).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote

from replay.demo.catalogue import PAGES, PRODUCTS

SEARCHES = (
    "lamp",
    "chair",
    "café",
    "usb cable",
    "nordic",
    "head",
    "no such thing",
    # Typed by people in the middle of a title: a parenthesis that is never closed.
    "cable (2m",
    "usb cable (2m",
)
_BUYS, _FORGETS_THE_CART, _FOLLOWS_A_DEAD_LINK = 0.7, 0.04, 0.1
_DEAD_LINK = "/products/9999"
_PROBE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many come, how often, how long they think between clicks (seconds, the mean), and what seed."""

    shoppers: int = 40
    visits: int = 4
    think: float = 0.11
    seed: int = 2


@dataclass(slots=True)
class Tally:
    """What the crowd saw: statuses, and requests that got no answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0

    @property
    def requests(self) -> int:
        return self.statuses.total() + self.lost


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        return found if isinstance(found, dict) else {}


class Connection:
    """One keep-alive HTTP/1.1 connection of one client, counting into the tally."""

    def __init__(self, host: str, port: int, agent: str, tally: Tally) -> None:
        self._host, self._port, self._agent, self._tally = host, port, agent, tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, target: str, *headers: tuple[str, str], form: object = None
    ) -> Answer | None:
        """One request and its answer; None, and a new connection next time, when none came."""
        try:
            answer = await self._ask(method, target, headers, form)
        except (OSError, EOFError, ValueError):
            self._tally.lost += 1
            await self.close()
            return None
        self._tally.statuses[answer.status] += 1
        if answer.headers.get("connection", "").lower() == "close":
            await self.close()
        return answer

    async def close(self) -> None:
        if self._streams:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _ask(
        self, method: str, target: str, headers: tuple[tuple[str, str], ...], form: object
    ) -> Answer:
        if not self._streams:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"User-Agent: {self._agent}",
        ]
        lines += [f"{name}: {value}" for name, value in headers]
        body = b"" if form is None else json.dumps(form).encode()
        if form is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        return await _read_answer(reader)


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(start.split(" ")[1]), headers, body)


class Shopper:
    """One client and what it does; `browser` tells cookies and gzip from bearer tokens."""

    def __init__(self, number: int, crowd: Crowd, connection: Connection, browser: bool) -> None:
        self._name = f"customer-{number:03d}"
        self._crowd = crowd
        self._random = Random(f"{crowd.seed}/{number}")
        self._connection = connection
        self._accept = [("Accept-Encoding", "gzip")] if browser else []
        self._browser = browser
        self._credential: list[tuple[str, str]] = []

    async def shop(self) -> None:
        """All visits, the first one beginning somewhere in the first second."""
        await asyncio.sleep(self._random.random())
        try:
            for _ in range(self._crowd.visits):
                await self._visit()
        finally:
            await self._connection.close()

    async def _visit(self) -> None:
        await self._ask("GET", "/")
        await self._log_in()
        await self._look_around()
        await self._fill_the_cart()
        await self._ask("GET", "/cart")
        if self._random.random() < _BUYS:
            await self._buy()

    async def _log_in(self) -> None:
        self._credential = []
        password = f"secret of {self._name}"
        answer = await self._ask("POST", "/login", form={"user": self._name, "password": password})
        if answer is None or answer.status != 200:
            return
        if self._browser:
            self._credential = [("Cookie", answer.headers["set-cookie"].partition(";")[0])]
        else:
            self._credential = [("Authorization", f"Bearer {answer.json()['token']}")]

    async def _look_around(self) -> None:
        draw = self._random
        await self._ask("GET", f"/products?page={draw.randint(1, PAGES)}")
        for text in draw.sample(SEARCHES, 2):
            await self._ask("GET", f"/search?q={quote(text, safe='()')}")
        for product in draw.sample(list(PRODUCTS), 2):
            await self._ask("GET", f"/products/{product}")
            await self._ask("GET", f"/products/{product}/reviews")
        if draw.random() < _FOLLOWS_A_DEAD_LINK:
            await self._ask("GET", _DEAD_LINK)
        await self._ask("GET", "/recommendations")

    async def _fill_the_cart(self) -> None:
        if self._random.random() < _FORGETS_THE_CART:
            return
        for product in self._random.sample(list(PRODUCTS), self._random.choice((1, 1, 2, 3))):
            form = {"product_id": product, "quantity": self._random.choice((1, 1, 1, 2, 5))}
            await self._ask("POST", "/cart/items", form=form)

    async def _buy(self) -> None:
        bought = await self._ask("POST", "/checkout")
        if bought is not None and bought.status == 201:
            await self._ask("GET", f"/orders/{bought.json()['id']}")

    async def _ask(self, method: str, target: str, form: object = None) -> Answer | None:
        """Think, then ask. An empty form is sent as one, as apps do."""
        await asyncio.sleep(min(self._random.expovariate(1 / self._crowd.think), 4 * self._crowd.think))
        if method == "POST" and form is None:
            form = {}
        return await self._connection.ask(method, target, *self._accept, *self._credential, form=form)


async def go_shopping(host: str, port: int, crowd: Crowd) -> Tally:
    """Send the whole crowd to the shop at `host:port`, with a load balancer's probe beside it."""
    tally = Tally()
    over = asyncio.Event()
    probe = asyncio.create_task(_probe(Connection(host, port, "probe/1.4 (balancer)", tally), over))
    try:
        await asyncio.gather(*(shopper.shop() for shopper in _arrive(host, port, crowd, tally)))
    finally:
        over.set()
        await probe
    return tally


def _arrive(host: str, port: int, crowd: Crowd, tally: Tally) -> Iterator[Shopper]:
    for number in range(crowd.shoppers):
        browser = number % 2 == 0
        agent = f"Mozilla/5.0 (device {number})" if browser else f"ShopApp/3.2 (device {number})"
        yield Shopper(number, crowd, Connection(host, port, agent, tally), browser)


async def _probe(connection: Connection, over: asyncio.Event) -> None:
    while not over.is_set():
        await connection.ask("GET", "/health")
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _PROBE_SECONDS)
    await connection.close()
