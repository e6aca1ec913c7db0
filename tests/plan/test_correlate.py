"""What binds and what does not: producers, consumers and the guards against chance, one line each."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

import pytest

from replay.plan.correlate import Binder, Binding, Seen, Wish, wished
from tests.plan.seen import bindings, learned, seen

TOKEN = "q7Zk3fB9xW2mN8vR5tY1"
UUID = "5b0c1a5e-9f3d-4a53-8c0e-2f1d7c9b1a34"


def jwt(**claims: Any) -> str:
    def part(data: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2ln"


def pair(made: dict[str, Any], asked: dict[str, Any]) -> list[Seen]:
    """`POST /things` answers, and a later request carries what it said."""
    return [
        seen(**{"endpoint": "POST /things", "target": "/things", "status": 201, **made}),
        seen(**{"endpoint": "POST /use", "target": "/use", "at": 1, **asked}),
    ]


COOKIE = {"gives": (("Set-Cookie", f"sid={TOKEN}; Path=/"),)}
BEARER = {"headers": (("Authorization", f"Bearer {TOKEN}"),)}
FOUND = [
    pytest.param({"answer": {"id": 41}}, {"endpoint": "GET /things/{id}", "target": "/things/41"},
                 "POST /things $.id", "GET /things/{id} path[1]", id="a small number where position agrees"),
    pytest.param({"answer": {"id": 41}}, {"target": "/use?thing_id=41"},
                 "POST /things $.id", "POST /use query thing_id", id="where the name says what it is of"),
    pytest.param({"answer": {"data": {"cartId": 7}}}, {"body": {"cart_id": 7}},
                 "POST /things $.data.cartId", "POST /use $.cart_id", id="where names agree"),
    pytest.param({"answer": {"thing": {"id": 41}}}, {"body": {"items": [{"thing": 41}]}},
                 "POST /things $.thing.id", "POST /use $.items[*].thing", id="by the object's name"),
    pytest.param({"gives": (("Location", "/things/41"),)}, {"endpoint": "GET /things/{id}", "target": "/things/41"},
                 "POST /things header location path[1] things", "GET /things/{id} path[1]", id="Location"),
    pytest.param({"gives": (("ETag", 'W/"9f3d4a538c0e"'),)}, {"headers": (("If-Match", 'W/"9f3d4a538c0e"'),)},
                 "POST /things header etag", "* header if-match", id="ETag"),
    pytest.param({"gives": (("X-Cart", TOKEN),)}, {"headers": (("X-Cart", TOKEN),)},
                 "POST /things header x-cart", "* header x-cart", id="any header"),
    pytest.param({"answer": {"token": TOKEN}}, BEARER,
                 "POST /things $.token", "* header authorization", id="bearer token"),
    pytest.param(COOKIE, {"headers": (("Cookie", f"a=1; sid={TOKEN}"),)},
                 "POST /things cookie sid", "* cookie sid", id="cookie"),
    pytest.param(COOKIE, {"headers": (("X-CSRF-Token", TOKEN),)},
                 "POST /things cookie sid", "* header x-csrf-token", id="a cookie repeated in a header"),
    pytest.param({"answer": f'<form><input type="hidden" name="csrf" value="{TOKEN}"></form>'},
                 {"body": f"a=1&csrf={TOKEN}"}, "POST /things form csrf", "POST /use form csrf", id="form field"),
    pytest.param({"answer": f"<meta content='{TOKEN}' name='csrf-token'>"},
                 {"headers": (("X-CSRF-Token", TOKEN),)},
                 "POST /things meta csrf-token", "* header x-csrf-token", id="meta element"),
    pytest.param({"answer": f'<a href="/things/{UUID}/edit">edit</a>'},
                 {"endpoint": "GET /things/{uuid}/edit", "target": f"/things/{UUID}/edit"},
                 "POST /things link /things/{}/edit path[1]", "GET /things/{uuid}/edit path[1]", id="link"),
    pytest.param({"answer": {"jwt": jwt(sub=UUID)}}, {"target": f"/use?for={UUID}"},
                 "POST /things $.jwt jwt sub", "POST /use query for", id="a claim of a JWT"),
    pytest.param({"answer": {"next": f"https://shop.test/use?cursor={TOKEN}"}}, {"target": f"/use?cursor={TOKEN}"},
                 "POST /things $.next query cursor", "POST /use query cursor", id="a URL in JSON"),
    pytest.param({"answer": {"id": UUID}}, {"body": f"p=%7B%22ref%22%3A%22{UUID}%22%7D"},
                 "POST /things $.id", "POST /use form p json ref", id="JSON in a form field"),
    pytest.param({"answer": {"id": UUID}},
                 {"headers": (("X-State", base64.b64encode(json.dumps({"r": UUID}).encode()).decode()),)},
                 "POST /things $.id", "* header x-state base64 json r", id="base64 of JSON"),
]  # fmt: skip


FOUND += [
    pytest.param({"status": 422, "answer": f'<form><input type="hidden" name="csrf" value="{TOKEN}"></form>'},
                 {"body": f"a=1&csrf={TOKEN}"}, "POST /things form csrf", "POST /use form csrf",
                 id="a form that is shown again"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "asked", "maker", "user"), FOUND)
def test_a_binding_is_found(made: dict[str, Any], asked: dict[str, Any], maker: str, user: str) -> None:
    assert learned(pair(made, asked)) == [(maker, user)]


NOT_FOUND = [
    pytest.param({"answer": {"count": 41}}, {"target": "/use?age=41"}, id="a small number by accident"),
    pytest.param({"answer": {"page": 2}}, {"target": "/use?page=2"}, id="a generic name"),
    pytest.param({"answer": {"status": "available"}}, {"target": "/use?status=available"}, id="a word"),
    pytest.param({"answer": {"on": "2024-05-06"}}, {"target": "/use?on=2024-05-06"}, id="a date"),
    pytest.param({"answer": {"a": "aaaaaaaaaaaaaaaa"}}, {"target": "/use?a=aaaaaaaaaaaaaaaa"}, id="low entropy"),
    pytest.param({"answer": {"id": UUID}, "target": f"/things?ref={UUID}"}, {"target": f"/use?id={UUID}"},
                 id="an echo of the request"),
    pytest.param({"answer": {"token": TOKEN}, "status": 404}, {"target": f"/use?t={TOKEN}"}, id="an error's answer"),
    pytest.param({"answer": {"token": TOKEN}, "gives": (("Cache-Control", "public, max-age=60"),)},
                 {"target": f"/use?t={TOKEN}"}, id="an answer for everybody"),
    pytest.param({"answer": {"token": TOKEN}}, {"target": f"/use?t={TOKEN}", "session": "other"}, id="another session"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "asked"), NOT_FOUND)
def test_chance_does_not_bind(made: dict[str, Any], asked: dict[str, Any]) -> None:
    assert learned(pair(made, asked)) == []


def test_a_value_that_overlapped_its_use_does_not_bind() -> None:
    made, asked = pair({"answer": {"token": TOKEN}}, BEARER)
    assert learned([made._replace(duration_ns=11), asked]) == []


def test_what_all_sessions_are_handed_is_data_and_does_not_bind() -> None:
    rows = []
    for number in range(6):
        rows += [
            seen(
                "GET /things",
                "/things",
                {"things": [{"id": n} for n in range(20)]},
                session=f"s{number}",
                at=3 * number,
            ),
            seen("GET /things/{id}", f"/things/{number}", session=f"s{number}", at=3 * number + 1),
        ]
    assert learned(rows) == []


def test_small_numbers_that_agree_by_name_only_now_and_then_do_not_bind() -> None:
    random, rows = Random(7), []
    for at in range(200):
        target = f"/things?after={random.randint(1, 400)}"
        rows.append(seen("GET /things", target, {"after": random.randint(1, 400)}, at=at))
    assert learned(rows) == []


def test_a_rule_says_how_often_it_was_seen() -> None:
    rows = []
    for number in range(5):
        session = f"s{number}"
        rows += [
            seen("POST /orders", "/orders", {"id": 100 + number}, session=session, at=10 * number),
            seen("GET /orders/{id}", f"/orders/{100 + number}", session=session, at=10 * number + 1),
            seen("GET /orders/{id}", f"/orders/{100 + number}", session=session, at=10 * number + 2),
        ]
    (rule,) = bindings(rows)
    assert (rule.count, rule.sessions, len(rule.examples)) == (10, 5, 3)
    assert rule.examples[0] == ("100", "x0", "x1")


ORDERS = Binding("POST /orders", "$.id", "GET /orders/{id}", "path[1]", 3)
CARTS = Binding("POST /carts", "$.id", "GET /orders/{id}", "path[1]", 1)
WISHES = [
    pytest.param(Wish("forbid", "POST /carts *", "*"), [ORDERS], id="forbid by pattern"),
    pytest.param(Wish("pin", ORDERS.maker, ORDERS.user), [ORDERS], id="pin leaves one maker"),
    pytest.param(Wish("add", "GET /me $.id", "* header x-user"),
                 [ORDERS, CARTS, Binding("GET /me", "$.id", "*", "header x-user")], id="add"),
    pytest.param(Wish("add", ORDERS.maker, ORDERS.user), [ORDERS, CARTS], id="add what is there"),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "rules"), WISHES)
def test_the_user_has_the_last_word(wish: Wish, rules: list[Binding]) -> None:
    assert wished([ORDERS, CARTS], [wish]) == rules


FORBIDDEN = [
    pytest.param([], "GET /news $.first", id="whoever says it first makes it"),
    pytest.param([Wish("forbid", "GET /news *", "*")], "POST /things $.token", id="all that one answers"),
    pytest.param([Wish("forbid", "* $.first", "* header *")], "GET /news $.second", id="one place of it"),
]


@pytest.mark.parametrize(("wishes", "maker"), FORBIDDEN)
def test_what_is_forbidden_leaves_room_for_another_maker(wishes: list[Wish], maker: str) -> None:
    rows = [
        seen("GET /news", "/news", {"first": TOKEN, "second": TOKEN}),
        seen("POST /things", "/things", {"token": TOKEN}, at=1, status=201),
        seen("GET /use", "/use", at=2, **BEARER),
    ]
    assert [(rule.maker, rule.user) for rule in bindings(rows, wishes)] == [(maker, "* header authorization")]


def test_the_binder_names_takes_and_slots_of_each_exchange() -> None:
    made, asked = pair({"answer": {"id": 41}}, {"endpoint": "GET /things/{id}", "target": "/things/41"})
    binder = Binder(bindings([made, asked]))
    assert [(place.erased, value) for place, value in binder.takes(made, 0)] == [("$.id", "41")]
    script = binder.script(asked, b"GET /things/41 HTTP/1.1\r\nHost: h\r\n\r\n", b"", False)
    assert script is not None
    assert script[0][1] == (0, "41", "path", b"41", ("path[1]", "POST /things $.id", 0))
    binder.close("s")
    assert binder.script(asked, b"GET /things/41 HTTP/1.1\r\n\r\n", b"", False) is None
