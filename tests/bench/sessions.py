"""What live sessions cost: the rate where every request but the login carries what an earlier answer handed out.

Half of the clients are browsers with a cookie, half are apps with a bearer token; a quarter of the requests also
name the user, whose number the login told.

In `make bench` the capture is sent lap after lap and planned once. `python -m tests.bench.sessions DIR` measures it
where every request is planned for the first time, on the sender's own core: a long capture, once through.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median

from replay.model import Exchange
from replay.store.reader import Dataset
from tests.bench.machine import BODY, described, many_files, nginx, table
from tests.bench.replaying import replayed
from tests.rows import T0, exchange
from tests.send.captures import write

SESSIONS, REQUESTS = 600, 40
_AT_ONCE = 300
_LONG = 24_000
_JSON = ("Content-Type", "application/json")


def rates(scratch: Path, seconds: int) -> str:
    """Requests per second on one core: nobody waits, requests wait, and they carry live values as well."""
    capture = write(scratch / "capture", _exchanges())
    seen: dict[str, list[float]] = {}
    bound = 0
    with nginx(scratch / "nginx") as server:
        for turn in range(3):
            for mode in ("off", "ordered", "live"):
                out = scratch / f"{mode}-{turn}"
                seen.setdefault(mode, []).append(replayed(capture, server.url, out, seconds, mode))
        bound = Dataset.open(out, "run").meta["books"]["sessions"]["values bound"]
    without = median(seen["off"])
    rows = [[mode, f"{median(found):,.0f}", f"{median(found) / without:.2f}"] for mode, found in seen.items()]
    head = (f"--sessions, one core ({bound:,} values bound in the last run)", "requests/s", "÷ off")
    return table(head, rows)


def once_through(scratch: Path) -> str:
    """The same of a capture that is much longer than what is read ahead."""
    capture = write(scratch / "long", _exchanges(_LONG))
    seen: dict[str, list[float]] = {}
    with nginx(scratch / "nginx") as server:
        for turn in range(3):
            for mode in ("off", "ordered", "live"):
                found = seen.setdefault(mode, [])
                found.append(replayed(capture, server.url, scratch / f"{mode}-{turn}", None, mode))
    without = median(seen["off"])
    rows = [[mode, f"{median(found):,.0f}", f"{median(found) / without:.2f}"] for mode, found in seen.items()]
    return table((f"--sessions, {_LONG * REQUESTS:,} exchanges once", "requests/s", "÷ off"), rows)


def _exchanges(sessions: int = SESSIONS) -> Iterator[Exchange]:
    """Sessions that take turns, some hundreds at a time."""
    draw = Random(5)
    number = 0
    for first in range(0, sessions, _AT_ONCE):
        secrets = [(f"{draw.getrandbits(96):024x}", f"{draw.getrandbits(64):016x}") for _ in range(_AT_ONCE)]
        for turn in range(REQUESTS):
            for place, (token, sid) in enumerate(secrets):
                yield _exchange(number, first + place, turn, token, sid)
                number += 1


def _exchange(number: int, session: int, turn: int, token: str, sid: str) -> Exchange:
    at = {
        "started_at": T0 + number * 50_000,
        "duration_ns": 40_000,
        "session_id": f"s{session}",
        "connection_id": f"c{session}",
    }
    user = 5000 + session
    if not turn:
        body = json.dumps({"token": token, "user": {"id": user, "name": "ann"}}).encode()
        return exchange(
            number, **at, target="/login", endpoint="GET /login", request_headers=(("Host", "shop.test"),),
            response_headers=(_JSON, ("Set-Cookie", f"sid={sid}; Path=/")), response_body=body,
        )  # fmt: skip
    browser = ("Cookie", f"theme=dark; sid={sid}")
    sent = (("Host", "shop.test"), browser if session % 2 else ("Authorization", f"Bearer {token}"))
    target, endpoint = f"/products/{turn}?page={turn}", "GET /products/{id}"
    if turn % 4 == 0:
        target, endpoint = f"/users/{user}/cart", "GET /users/{id}/cart"
    return exchange(
        number, **at, target=target, endpoint=endpoint,
        request_headers=sent, response_headers=(_JSON,), response_body=BODY,
    )  # fmt: skip


if __name__ == "__main__":
    many_files()
    print(f"{described()}\n\n{once_through(Path(sys.argv[1]))}")
