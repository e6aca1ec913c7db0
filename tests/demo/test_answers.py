"""The shop's answers, without a socket: every endpoint, every refusal, and the noise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replay.demo.builds import NewBuild
from replay.demo.catalogue import PRODUCTS

DISCOUNTED = next(product for product in PRODUCTS.values() if product.discount_percent)


@pytest.mark.parametrize(
    ("method", "target", "form", "status"),
    [
        ("GET", "/", None, 200),
        ("GET", "/health", None, 200),
        ("POST", "/login", {"user": "ada", "password": "x"}, 200),
        ("POST", "/login", {"user": "ada"}, 400),
        ("POST", "/login", ["ada"], 400),
        ("POST", "/login", None, 400),
        ("GET", "/products", None, 200),
        ("GET", "/products?page=2", None, 200),
        ("GET", "/products?page=two", None, 400),
        ("GET", "/products?page=%C2%B2", None, 400),
        ("GET", "/products/1001", None, 200),
        ("GET", "/products/9999", None, 404),
        ("GET", "/products/1001/reviews", None, 200),
        ("GET", "/search?q=caf%C3%A9", None, 200),
        ("GET", "/search", None, 400),
        ("GET", "/recommendations", None, 200),
        ("POST", "/cart/items", {"product_id": 1001, "quantity": 2}, 201),
        ("POST", "/cart/items", {"product_id": 1001, "quantity": 0}, 422),
        ("POST", "/cart/items", {"product_id": 9999}, 404),
        ("POST", "/cart/items", {}, 400),
        ("GET", "/cart", None, 200),
        ("POST", "/checkout", {}, 409),
        ("GET", "/orders/none", None, 404),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/cart", None, 405),
    ],
)
def test_every_endpoint_answers(open_shop: Any, method: str, target: str, form: Any, status: int) -> None:
    response = open_shop().ask(method, target, form)
    assert response.status == status
    assert "X-Request-Id" in dict(response.headers)
    if status >= 400:
        assert list(json.loads(response.body)) == ["error"]


def test_a_customer_logs_in_buys_and_sees_the_order(open_shop: Any) -> None:
    shop = open_shop(trust=False)
    login = shop.ask("POST", "/login", {"user": "ada", "password": "x"}, token=None)
    token = json.loads(login.body)["token"]
    assert dict(login.headers)["Set-Cookie"].startswith(f"session={token};")
    shop.ask("POST", "/cart/items", {"product_id": DISCOUNTED.id, "quantity": 2}, token=token)
    order = shop.ask("POST", "/checkout", {}, token=token)
    bought = json.loads(order.body)
    assert order.status == 201
    assert dict(order.headers)["Location"] == f"/orders/{bought['id']}"
    assert bought["total"] == round(DISCOUNTED.price_cents * 2 * 0.85) / 100
    again = shop.see("GET", f"/orders/{bought['id']}", token=token)
    assert again == bought
    assert shop.see("GET", "/cart", token=token)["lines"] == []


def test_a_browser_may_send_its_token_as_a_cookie(open_shop: Any) -> None:
    shop = open_shop(trust=False)
    token = shop.see("POST", "/login", {"user": "ada", "password": "x"})["token"]
    headers = {"cookie": f"theme=dark; session={token}; x=y"}
    assert shop.handle("GET", "/cart", headers).status == 200


def test_production_knows_its_tokens_and_staging_trusts_any(open_shop: Any) -> None:
    assert open_shop(trust=False).ask("GET", "/cart").status == 401
    assert open_shop(trust=True).ask("GET", "/cart").status == 200
    assert open_shop(trust=True).ask("GET", "/cart", token=None).status == 401


def test_order_numbers_are_other_ones_in_every_shop(open_shop: Any) -> None:
    numbers = []
    for seed in (1, 2):
        shop = open_shop(seed=seed)
        for _ in range(2):
            shop.ask("POST", "/cart/items", {"product_id": DISCOUNTED.id})
            numbers.append(shop.see("POST", "/checkout", {})["id"])
    assert len(set(numbers)) == 4


def test_the_noise_differs_and_all_else_is_equal(open_shop: Any) -> None:
    one, other = open_shop(seed=1), open_shop(seed=2)
    product = [shop.see("GET", "/products/1001") for shop in (one, other)]
    assert product[0]["tags"] != product[1]["tags"]
    assert sorted(product[0].pop("tags")) == sorted(product[1].pop("tags"))
    assert product[0] == product[1]
    drawn = [shop.see("GET", "/recommendations")["items"] for shop in (one, other)]
    assert drawn[0] != drawn[1]
    listed = [shop.ask("GET", "/products?page=3").body for shop in (one, other)]
    assert listed[0] == listed[1]


def test_a_crash_in_a_view_is_a_500_that_says_nothing(open_shop: Any) -> None:
    response = open_shop(NewBuild).ask("GET", "/search?q=cable%20(2m")
    assert (response.status, json.loads(response.body)) == (500, {"error": "internal error"})
