"""Sessions for tests of correlation, written as (endpoint, request, answer) lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from replay.plan.correlate import Binding, Learner, Seen, Wish

JSON = ("Content-Type", "application/json")
HTML = ("Content-Type", "text/html; charset=utf-8")
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def seen(
    endpoint: str,
    target: str,
    answer: Any = None,
    *,
    session: str = "s",
    at: int = 0,
    headers: tuple[tuple[str, str], ...] = (),
    body: Any = None,
    status: int = 200,
    gives: tuple[tuple[str, str], ...] = (),
) -> Seen:
    """One exchange of 5 ns; a body that is no text or bytes is JSON."""
    request_body, request_type = _body(body)
    response_body, response_type = _body(answer)
    return Seen(
        f"x{at}", session, at * 10, 5, endpoint, target, (*headers, *request_type), request_body,
        status, (*response_type, *gives), response_body,
    )  # fmt: skip


def learned(rows: Iterable[Seen]) -> list[tuple[str, str]]:
    """The rules as (maker, user)."""
    return [(rule.maker, rule.user) for rule in bindings(rows)]


def bindings(rows: Iterable[Seen], wishes: Iterable[Wish] = ()) -> tuple[Binding, ...]:
    learner = Learner(wishes)
    for row in rows:
        learner.add(row)
    return learner.bindings()


def _body(body: Any) -> tuple[bytes | None, tuple[tuple[str, str], ...]]:
    if body is None:
        return b"", ()
    if isinstance(body, str):
        return body.encode(), (HTML if body.startswith("<") else FORM,)
    return json.dumps(body).encode(), (JSON,)
