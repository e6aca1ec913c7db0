"""Shares, selections and lanes."""

from __future__ import annotations

import pytest

from replay.errors import UsageError
from replay.plan.dispatch import Selection, share_of
from replay.plan.sessions import Lanes


def test_shares_are_even_and_fixed() -> None:
    shares = [share_of(f"session-{n}", 4) for n in range(4000)]
    assert all(900 < shares.count(share) < 1100 for share in range(4))
    # Other processes, other machines, other Python versions must compute the same.
    assert [share_of(f"session-{n}", 4) for n in range(6)] == [1, 0, 2, 3, 1, 0]


@pytest.mark.parametrize(
    ("include", "exclude", "endpoint", "taken"),
    [
        ((), (), "GET /a", True),
        (("GET",), (), "GET /a", True),
        (("get",), (), "GET /a", True),
        (("POST",), (), "GET /a", False),
        (("/orders/*",), (), "GET /orders/{id}", True),
        (("/orders/*",), (), "GET /carts/{id}", False),
        (("POST /cart*",), (), "POST /cart/items", True),
        (("POST /cart*",), (), "GET /cart/items", False),
        ((), ("DELETE",), "DELETE /a", False),
        (("GET",), ("/health",), "GET /health", False),
        (("GET", "POST"), (), "POST /a", True),
    ],
)
def test_selection(include: tuple, exclude: tuple, endpoint: str, taken: bool) -> None:
    assert Selection(include, exclude).takes(endpoint) is taken


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(UsageError, match="pattern"):
        Selection((" ",))


@pytest.mark.parametrize(
    ("exchanges", "lanes"),
    [
        ([(0, 10), (10, 10), (30, 5)], [0, 0, 0]),
        ([(0, 10), (5, 10), (12, 1)], [0, 1, 0]),
        ([(0, 100), (1, 100), (2, 100), (101, 1)], [0, 1, 2, 0]),
        ([(0, None), (1, 5)], [0, 0]),
    ],
    ids=["one after the other", "two at once", "three at once", "unknown end"],
)
def test_overlapping_exchanges_get_lanes_of_their_own(exchanges: list, lanes: list[int]) -> None:
    assigned = Lanes()
    assert [assigned.assign("c", start, duration) for start, duration in exchanges] == lanes


def test_a_closed_connection_begins_anew() -> None:
    lanes = Lanes()
    lanes.assign("c", 0, 100)
    lanes.close("c")
    assert lanes.assign("c", 1, 100) == 0


@pytest.mark.parametrize(
    ("writes", "deny", "endpoint", "reason"),
    [
        ((), (), "GET /a", None),
        ((), (), "HEAD /a", None),
        ((), (), "OPTIONS /a", None),
        ((), (), "POST /a", "writes"),
        ((), (), "PROPFIND /a", "writes"),
        ((), (), "get /a", "writes"),
        (("all",), (), "DELETE /a", None),
        (("ALL",), (), "DELETE /a", None),
        (("POST",), (), "POST /a", None),
        (("POST",), (), "PUT /a", "writes"),
        (("POST /graphql",), (), "POST /graphql", None),
        (("/cart*",), (), "POST /cart/items", None),
        (("/cart*",), (), "POST /orders", "writes"),
        ((), ("/admin*",), "GET /admin/users", "denied"),
        (("all",), ("/payments*", "/mail*"), "POST /payments/{id}", "denied"),
        (("all",), ("/payments*",), "POST /orders", None),
    ],
)
def test_only_safe_methods_are_sent_unless_writes_are_allowed(
    writes: tuple[str, ...], deny: tuple[str, ...], endpoint: str, reason: str | None
) -> None:
    method = endpoint.partition(" ")[0]
    assert Selection(writes=writes, deny=deny).left_out(endpoint, method) == reason


def test_the_method_on_the_wire_counts_not_the_endpoints_name() -> None:
    assert Selection(writes=()).left_out("GET /a", "DELETE") == "writes"
