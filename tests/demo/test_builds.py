"""The new build breaks what the list says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from replay.demo.builds import PLANTED, NewBuild, OldBuild
from replay.demo.catalogue import PRODUCTS
from replay.demo.shoppers import SEARCHES
from replay.findings import KINDS

DISCOUNTED = next(product for product in PRODUCTS.values() if product.discount_percent)
PLAIN = next(product for product in PRODUCTS.values() if not product.discount_percent)
OLD, NEW = OldBuild(), NewBuild()


def test_one_product_in_five_is_mispriced() -> None:
    wrong = [p for p in PRODUCTS.values() if OLD.line_cents(p, 1) != NEW.line_cents(p, 1)]
    assert len(wrong) == len(PRODUCTS) // 5
    assert all(product.discount_percent for product in wrong)
    assert all(OLD.line_cents(p, 3) != NEW.line_cents(p, 3) for p in wrong)


def test_only_an_unclosed_parenthesis_breaks_the_search() -> None:
    for text in SEARCHES:
        if "(" in text:
            assert OLD.search(text)
            with pytest.raises(Exception, match="unterminated subpattern"):
                NEW.search(text)
        else:
            assert OLD.search(text) == NEW.search(text)


def test_what_the_new_build_answers_otherwise(open_shop: Any) -> None:
    old, new = open_shop(OldBuild), open_shop(NewBuild)
    entries = [shop.see("GET", "/products")["products"][0] for shop in (old, new)]
    assert set(entries[0]) ^ set(entries[1]) == {"in_stock", "available"}
    prices = [shop.see("GET", f"/products/{PLAIN.id}")["price"] for shop in (old, new)]
    assert isinstance(prices[0], float)
    assert prices[1] == f"{prices[0]:.2f}"
    headers = [set(dict(shop.ask("GET", "/").headers)) for shop in (old, new)]
    assert headers[0] - headers[1] == {"Content-Security-Policy"}
    queries = [shop.ask("GET", f"/products/{PLAIN.id}/reviews").queries for shop in (old, new)]
    assert queries[1] == 10 * queries[0]


def test_totals_are_right_without_a_discount(open_shop: Any) -> None:
    for product, equal in ((PLAIN, True), (DISCOUNTED, False)):
        old, new = (
            open_shop(build).see("POST", "/cart/items", {"product_id": product.id, "quantity": 5})
            for build in (OldBuild, NewBuild)
        )
        assert (old["total"] == new["total"]) is equal
        assert old["lines"] == new["lines"]


def test_the_list_of_what_is_planted_uses_the_report_s_words() -> None:
    signs = [sign for regression in PLANTED for sign in (*regression.signs, *regression.follows)]
    assert len(signs) == len(set(signs))
    assert {sign.kind for sign in signs} <= set(KINDS)
    assert len(PLANTED) == 6
