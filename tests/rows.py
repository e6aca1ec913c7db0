"""Rows for tests: an exchange and a result with unremarkable values, any of which may be replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from replay.model import Exchange, Result, exchange_id

T0 = 1_700_000_000_123_456_789


def exchange(number: int = 0, **values: Any) -> Exchange:
    started_at = values.pop("started_at", T0 + number * 1_000_000)
    plain = Exchange(
        exchange_id=exchange_id(started_at, number),
        session_id="s0",
        connection_id="c0",
        started_at=started_at,
        request_ns=10_000,
        ttfb_ns=200_000,
        duration_ns=300_000,
        method="GET",
        scheme="http",
        host="shop.test",
        target=f"/products/{number}?q=%7e",
        endpoint="GET /products/{id}",
        http_version="HTTP/1.1",
        request_headers=(("Host", "shop.test"), ("x-TWICE", "a"), ("X-Twice", "b")),
        response_headers=(("Content-Type", "application/json"), ("X-Latin", "caf\xe9")),
        request_body=b"",
        response_body=b'{"id": 1}',
        request_size=0,
        response_size=9,
        truncated=False,
        status=200,
        error=None,
    )
    return replace(plain, **values)


def result(number: int = 0, **values: Any) -> Result:
    plain = Result(
        exchange_id=exchange_id(T0 + number * 1_000_000, number),
        lap=0,
        session_id="s0",
        connection_id="c0",
        endpoint="GET /products/{id}",
        due_ns=number * 1_000_000,
        sent_ns=number * 1_000_000 + 5_000,
        held_ns=0,
        connect_ns=None,
        tls_ns=None,
        ttfb_ns=200_000,
        duration_ns=300_000,
        reused=True,
        exact=True,
        sent_head=None,
        sent_body=None,
        status=200,
        response_headers=(("Content-Type", "application/json"),),
        response_body=b'{"id": 1}',
        response_size=9,
        truncated=False,
        error=None,
        skipped=None,
    )
    return replace(plain, **values)
