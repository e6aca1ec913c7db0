"""Sessions that stay alive: who waits for whom, and what of earlier answers goes into later requests."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from replay.config import RunSettings, load
from replay.demo.children import shop
from replay.errors import ReplayError
from replay.model import Exchange, Result
from replay.store.reader import Dataset
from replay.verbs.run import replay_run
from tests.rows import T0, exchange
from tests.send.captures import write
from tests.send.servers import RecordingServer, answer_ok
from tests.send.test_run import replay

MS = 1_000_000
JSON = (("Content-Type", "application/json"),)
SHOP = Path(__file__).parents[2] / "captures" / "shop"


def rows(run: Path) -> list[Result]:
    return list(Dataset.open(run, "run").rows())


def by_number(run: Path) -> dict[int, Result]:
    return {int(row.exchange_id[-12:], 16): row for row in rows(run)}


def at(number: int, start_ms: int, took_ms: int, **values: object) -> Exchange:
    """Exchange `number`, begun and answered then, on a connection of its own."""
    plain = {
        "started_at": T0 + start_ms * MS,
        "duration_ns": took_ms * MS,
        "connection_id": f"c{number}",
        "target": f"/{number}",
        "endpoint": "GET /{id}",
        "request_headers": (("Host", "shop.test"),),
    }
    return exchange(number, **{**plain, **values})


def say(connection: socket.socket, body: object, *headers: str, status: int = 200) -> bool:
    text = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
        *headers,
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + text)
    return True


def test_a_request_waits_for_the_answers_it_had_waited_for(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"GET /0 "):
            time.sleep(0.4)
        return answer_ok(connection, request)

    capture = write(
        tmp_path / "capture",
        [
            at(0, 0, 10),
            at(1, 5, 10),  # overlaps
            at(2, 20, 5),  # had waited for both
            at(3, 20, 5, session_id="other"),
            at(4, 21, 5, session_id="other"),
            at(5, 30, 5),
        ],
    )
    with RecordingServer(behave) as server:
        replay_run(
            capture,
            server.url,
            tmp_path / "run",
            RunSettings(
                writes=("*",),
            ),
        )
    found = by_number(tmp_path / "run")
    ended = {n: row.sent_ns + row.duration_ns for n, row in found.items()}
    assert found[2].sent_ns >= ended[0]
    assert found[5].sent_ns >= ended[2]
    assert max(found[n].sent_ns for n in (1, 3, 4)) < ended[0]
    # Waiting for the build under test is accounted apart from the generator's own lag.
    assert found[2].held_ns > 300 * MS
    assert all(row.sent_ns - row.due_ns - row.held_ns < 200 * MS for row in found.values())
    books = Dataset.open(tmp_path / "run", "run").meta["books"]
    assert books["sessions"]["waited for an answer"] >= 2


def test_what_is_skipped_breaks_no_chain(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"GET /0 "):
            time.sleep(0.3)
        return answer_ok(connection, request)

    cut = {"request_body": b"half", "request_size": 9}
    capture = write(tmp_path / "capture", [at(0, 0, 5), at(1, 10, 5, **cut), at(2, 20, 5)])
    with RecordingServer(behave) as server:
        replay_run(capture, server.url, tmp_path / "run", RunSettings())
    found = by_number(tmp_path / "run")
    assert found[1].skipped == "body truncated"
    assert found[2].sent_ns >= found[0].sent_ns + found[0].duration_ns


def test_without_sessions_nobody_waits(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"GET /0 "):
            time.sleep(0.4)
        return answer_ok(connection, request)

    capture = write(tmp_path / "capture", [at(0, 0, 10), at(1, 20, 5)])
    with RecordingServer(behave) as server:
        replay_run(capture, server.url, tmp_path / "run", RunSettings(writes=("*",), sessions="off"))
    found = by_number(tmp_path / "run")
    assert found[1].sent_ns < found[0].sent_ns + found[0].duration_ns


def test_what_waits_for_an_answer_that_never_comes_fails_and_is_recorded(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"GET /0 "):
            time.sleep(3)
            return False
        return answer_ok(connection, request)

    capture = write(tmp_path / "capture", [at(0, 0, 1), at(1, 5, 1), at(2, 8, 1)])
    with RecordingServer(behave) as server:
        summary = replay_run(capture, server.url, tmp_path / "run", RunSettings(writes=("*",), timeout=0.5))
    assert summary.balanced
    assert Counter(row.error or row.status for row in rows(tmp_path / "run")) == {"timeout": 1, 200: 2}


ORDER = (
    at(0, 0, 5, method="POST", target="/orders", endpoint="POST /orders", status=201,
       request_headers=(("Host", "h"),), response_headers=(*JSON, ("Set-Cookie", "sid=recorded1cookie9; Path=/")),
       response_body=b'{"id": 41}', response_size=10),
    at(1, 10, 5, target="/orders/41?x=%7e", endpoint="GET /orders/{id}",
       request_headers=(("Host", "h"), ("Cookie", "theme=dark; sid=recorded1cookie9")),
       response_headers=JSON, response_body=b'{"id": 41}', response_size=10),
)  # fmt: skip


class Orders:
    """A server that numbers its orders; with `broken`, it takes none."""

    def __init__(self, broken: bool = False) -> None:
        self._broken = broken
        self._numbers = itertools.count(977)

    def __call__(self, connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"POST /orders "):
            if self._broken:
                return say(connection, {"error": "no"}, status=500)
            number = next(self._numbers)
            return say(
                connection,
                {"id": number},
                f"Set-Cookie: sid=live{number}; Path=/",
                "Set-Cookie: extra=1",
                status=201,
            )
        return say(connection, {})


def test_live_values_and_cookies_take_the_place_of_recorded_ones(tmp_path: Path) -> None:
    capture = write(tmp_path / "capture", ORDER)
    with RecordingServer(Orders()) as server:
        replay_run(capture, server.url, tmp_path / "run", RunSettings(writes=("*",), loop=2))
        asked = [request for request in server.requests if request.startswith(b"GET")]
    expected = b"GET /orders/%d?x=%%7e HTTP/1.1\r\nHost: h\r\nCookie: theme=dark; sid=live%d\r\n\r\n"
    assert asked == [expected % (number, number) for number in (977, 978)]
    found = [row for row in rows(tmp_path / "run") if row.endpoint.startswith("GET")]
    assert [(row.exact, row.sent_head, row.unbound) for row in found] == [
        (False, text, None) for text in asked
    ]
    assert rows(tmp_path / "run")[0].learned == (("recorded1cookie9", "live977"), ("41", "977"))


def test_a_missing_live_value_sends_the_recorded_one_and_says_why(tmp_path: Path) -> None:
    capture = write(tmp_path / "capture", ORDER)
    with RecordingServer(Orders(broken=True)) as server:
        summary = replay_run(
            capture,
            server.url,
            tmp_path / "run",
            RunSettings(
                writes=("*",),
            ),
        )
        asked = server.requests[-1]
    assert asked.startswith(b"GET /orders/41?x=%7e HTTP/1.1\r\n")
    assert by_number(tmp_path / "run")[1].unbound == (
        "path[1] from POST /orders $.id: answered 500; cookie sid from POST /orders cookie sid: answered 500"
    )
    assert by_number(tmp_path / "run")[1].exact
    assert summary.books["sessions"]["unbound"] == 1


def test_what_an_exchange_that_is_not_sent_had_handed_out_is_missed(tmp_path: Path) -> None:
    capture = write(tmp_path / "capture", [*ORDER, at(2, 30, 1)])
    with RecordingServer(Orders()) as server:
        replay_run(capture, server.url, tmp_path / "run", RunSettings())
        assert not any(request.startswith(b"POST") for request in server.requests)
    missed = by_number(tmp_path / "run")[1].unbound
    assert missed is not None
    assert missed.startswith("path[1] from POST /orders $.id: not sent")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_shop_stays_logged_in(tmp_path: Path, workers: int) -> None:
    with shop("old") as target:
        summary = replay_run(
            SHOP, target, tmp_path / "run", RunSettings(writes=("*",), speed=4, workers=workers)
        )
    assert _survivors(tmp_path / "run") == (580, 580)
    assert "unbound" not in summary.books["sessions"]
    assert summary.books["sessions"]["values bound"] > 400


def test_without_bindings_the_shop_turns_its_customers_away(tmp_path: Path) -> None:
    with shop("old") as target:
        replay_run(SHOP, target, tmp_path / "run", RunSettings(writes=("*",), speed=4, sessions="ordered"))
    succeeded, recorded = _survivors(tmp_path / "run")
    assert succeeded < 0.8 * recorded
    failed = Counter(row.status for row in rows(tmp_path / "run") if (row.status or 500) >= 400)
    assert failed[401] > 100


def _survivors(run: Path) -> tuple[int, int]:
    """How many of the requests that succeeded in the recording succeeded again, and how many those are."""
    recorded = {row.exchange_id for row in Dataset.open(SHOP, "capture").rows() if (row.status or 500) < 400}
    succeeded = {row.exchange_id for row in rows(run) if (row.status or 500) < 400}
    return len(recorded & succeeded), len(recorded)


def test_the_bindings_of_a_capture_are_listed(tmp_path: Path) -> None:
    config = tmp_path / "replay.toml"
    config.write_text('[[bind]]\nforbid = "* cookie *"\nto = "* header *"\n')
    listed = json.loads(replay("inspect", SHOP, "--bindings", "--json", "--config", config).stdout)
    found = {(rule["maker"], rule["user"]) for rule in listed}
    assert ("POST /checkout header location path[1] orders", "GET /orders/{id} path[1]") in found
    assert ("POST /login cookie session", "* cookie session") in found
    assert not any(user.startswith("* header") and " cookie " in maker for maker, user in found)
    assert re.search(r" 243 +6 ", replay("inspect", SHOP, "--bindings").stdout)


def test_rewrites_and_test_users_come_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("name,password\nann,s3cret\n")
    (tmp_path / "mine.py").write_text(
        "def mark(session, parts):\n    return parts._replace(headers=(*parts.headers, ('X-Session', session)))\n"
    )
    config = tmp_path / "replay.toml"
    config.write_text(
        '[auth]\nusers = "users.csv"\n'
        '[[rewrite.rule]]\nendpoint = "POST *"\njson = "$.password"\nset = "{user.password}"\n'
        '[[rewrite.rule]]\ncall = "mine:mark"\n'
    )
    body = b'{"user": "ann", "password": "xxxxx"}'
    login = at(0, 0, 1, method="POST", target="/login", endpoint="POST /login", request_body=body,
               request_size=len(body), request_headers=(("Content-Type", "application/json"),
                                                        ("Content-Length", str(len(body)))))  # fmt: skip
    capture = write(tmp_path / "capture", [login])
    with RecordingServer() as server:
        settings = load(config).run_settings(writes=("*",))
        replay_run(capture, server.url, tmp_path / "run", settings)
        (request,) = server.requests
    assert request == (
        b"POST /login HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 37\r\nX-Session: s0\r\n\r\n"
        b'{"user": "ann", "password": "s3cret"}'
    )
    (row,) = rows(tmp_path / "run")
    assert (row.exact, row.sent_body) == (False, request.partition(b"\r\n\r\n")[2])


def test_dates_move_with_the_recording(tmp_path: Path) -> None:
    config = tmp_path / "replay.toml"
    config.write_text('[rewrite.time]\nnames = ["from"]\nto = 2026-05-01T00:00:00Z\n')
    day = time.strftime("%Y-%m-%d", time.gmtime(T0 / 1e9))
    capture = write(tmp_path / "capture", [at(0, 0, 1, target=f"/trips?from={day}&to={day}")])
    with RecordingServer() as server:
        replay_run(capture, server.url, tmp_path / "run", load(config).run_settings())
        (request,) = server.requests
    assert re.match(rb"GET /trips\?from=2026-(04-30|05-01)&to=" + day.encode(), request)


def test_a_function_that_cannot_be_had_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    config = tmp_path / "replay.toml"
    config.write_text('[[rewrite.rule]]\ncall = "nowhere:f"\n')
    with RecordingServer() as server, pytest.raises(ReplayError, match='call = "nowhere:f" cannot be had'):
        replay_run(
            write(tmp_path / "capture", [at(0, 0, 1)]),
            server.url,
            tmp_path / "run",
            load(config).run_settings(),
        )
    assert server.requests == []
    assert not (tmp_path / "run").exists()


def playing(recorded: list[Exchange], tmp_path: Path, answers: dict[str, object]) -> list[str]:
    """Replay against a server that answers so, by the request's method and path; the request lines it got."""

    def behave(connection: socket.socket, request: bytes) -> bool:
        line = request.split(b" HTTP/", 1)[0].decode()
        return say(connection, answers.get(line, {}))

    with RecordingServer(behave) as server:
        replay_run(
            write(tmp_path / "capture", recorded), server.url, tmp_path / "run", RunSettings(writes=("*",))
        )
        return [request.split(b" HTTP/", 1)[0].decode() for request in server.requests]


def made(number: int, start_ms: int, line: str, body: object, endpoint: str, **values: object) -> Exchange:
    method, target = line.split(" ")
    known = {"method": method, "target": target, "endpoint": endpoint, "response_headers": JSON}
    took = int(values.pop("took_ms", 5))
    return at(number, start_ms, took, **{**known, "response_body": json.dumps(body).encode(), **values})


def test_two_things_of_one_recorded_number_are_two_things(tmp_path: Path) -> None:
    """Tables count by themselves: order 70 and customer 70 of production are any two numbers on staging."""
    recorded, number = [], 0
    for session in range(4):
        same, other = 70 + session, 70 + session if session == 0 else 300 + session
        for start, line, body, endpoint in (
            (0, "POST /orders", {"id": same, "customer_id": other}, "POST /orders"),
            (10, f"GET /customers/{other}", {}, "GET /customers/{id}"),
            (20, "POST /items", {"id": same}, "POST /items"),
            (30, f"DELETE /orders/{same}", {}, "DELETE /orders/{id}"),
            (40, f"GET /items/{same}", {}, "GET /items/{id}"),
        ):
            recorded.append(
                made(number, 100 * session + start, line, body, endpoint, session_id=f"s{session}")
            )
            number += 1
    answers = {"POST /orders": {"id": 900, "customer_id": 12}, "POST /items": {"id": 555}}
    lines = playing(recorded, tmp_path, answers)
    assert Counter(lines) == {
        "POST /orders": 4,
        "GET /customers/12": 4,
        "POST /items": 4,
        "DELETE /orders/900": 4,
        "GET /items/555": 4,
    }


@pytest.mark.parametrize(
    ("live", "asked"),
    [
        ([101, 102, 103], [101, 102, 103]),  # other numbers that happen to overlap: by their place
        ([102, 100, 101], [100, 101, 102]),  # the same data in another order
        ([7, 102, 100, 101], [100, 101, 102]),  # and more of it
        ([900, 901, 902], [900, 901, 902]),
        ([102, 100], [100, 101, 102]),  # some of it: what is not there is asked for as recorded
    ],
)
def test_items_of_a_list(tmp_path: Path, live: list[int], asked: list[int]) -> None:
    recorded = []
    for session in range(3):
        ids = [100, 101, 102] if session == 0 else [500 + 10 * session + n for n in range(3)]
        known, first = {"session_id": f"s{session}"}, 10 * session
        body = {"items": [{"id": number} for number in ids]}
        recorded.append(made(first, 100 * session, "GET /items", body, "GET /items", **known))
        for turn, number in enumerate(ids):
            line = f"GET /items/{number}"
            start = 100 * session + 10 * (turn + 1)
            recorded.append(made(first + turn + 1, start, line, {}, "GET /items/{id}", **known))
    lines = playing(recorded, tmp_path, {"GET /items": {"items": [{"id": number} for number in live]}})
    rows = [row for row in by_number(tmp_path / "run").items() if 0 < row[0] < 10]
    sent = {number: (row.sent_head or b"").split(b" ")[1:2] for number, row in rows}
    recorded_ids = [100, 101, 102]
    found = [int(sent[n + 1][0].split(b"/")[-1]) if sent[n + 1] else recorded_ids[n] for n in range(3)]
    assert found == asked, lines


def test_what_is_asked_for_again_meanwhile_stays_known(tmp_path: Path) -> None:
    recorded = []
    for session in range(3):
        token = f"tk{session}Zq9XbQ71mLw{session}4f"
        for number, (start, line, took, headers) in enumerate(
            [
                (0, "GET /poll", 5, ()),
                (10, "GET /poll", 60, ()),  # still under way when the next one begins
                (30, "GET /a", 5, (("X-Tok", token),)),
                (90, "GET /b", 5, (("X-Tok", token),)),
            ]
        ):
            known = {"session_id": f"s{session}", "request_headers": (("Host", "shop.test"), *headers)}
            body = {"ref": token} if line == "GET /poll" else {}
            recorded.append(
                made(4 * session + number, 200 * session + start, line, body, line, took_ms=took, **known)
            )
    playing(recorded, tmp_path, {"GET /poll": {"ref": "live-ref-0123456789abcdef"}})
    carrying = [row for row in rows(tmp_path / "run") if row.endpoint in ("GET /a", "GET /b")]
    assert len(carrying) == 6
    assert all(b"X-Tok: live-ref-0123456789abcdef" in (row.sent_head or b"") for row in carrying)
