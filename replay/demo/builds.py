"""The two builds: ordinary variations of the shop's code, and the list of what the new one breaks.

A build names the behaviours that a team would change from one release to the next; `answers` asks it
wherever the two could differ. `NewBuild` is a plausible release: each change has a reason that would pass
a review, and each breaks something a unit test with its own expectations would not notice.

`PLANTED` says what is broken and where it must show. Only the demonstration's last step reads it, to hold
it against the report; nothing that records, replays or compares knows of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from replay.demo.catalogue import PRODUCTS, REVIEWS_EACH, Product

Json = dict[str, object]
Header = tuple[str, str]


def money(cents: int) -> float:
    """Cents as the decimal number that the answers carry."""
    return cents / 100


class OldBuild:
    """The release that production runs."""

    name = "old"

    def listing_entry(self, product: Product) -> Json:
        """A product as the list shows it."""
        return {
            "id": product.id,
            "title": product.title,
            "price": money(product.price_cents),
            "in_stock": product.in_stock,
        }

    def shown_price(self, product: Product) -> float | str:
        """The price on a product's own page."""
        return money(product.price_cents)

    def cart_unit_cents(self, product: Product) -> int:
        """The price that a cart starts from, before the discount."""
        return product.price_cents

    def line_cents(self, product: Product, quantity: int) -> int:
        """What one line of a cart costs."""
        full = self.cart_unit_cents(product) * quantity
        return round(full * (100 - product.discount_percent) / 100)

    def search(self, text: str) -> list[Product]:
        """The products whose title contains `text`."""
        wanted = text.casefold()
        return [product for product in PRODUCTS.values() if wanted in product.title.casefold()]

    def review_queries(self) -> int:
        """Database queries behind a page of reviews: one, which joins the authors."""
        return 1

    def page_headers(self) -> tuple[Header, ...]:
        """Headers of the HTML pages."""
        return (
            ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:"),
            ("X-Content-Type-Options", "nosniff"),
        )


class NewBuild(OldBuild):
    """The release that is about to ship."""

    name = "new"

    def listing_entry(self, product: Product) -> Json:
        """Says `available`, as the warehouse's interface does now; every client still reads `in_stock`."""
        entry = super().listing_entry(product)
        entry["available"] = entry.pop("in_stock")
        return entry

    def shown_price(self, product: Product) -> float | str:
        """Two decimals always: the serialiser of the new Decimal column makes it a string."""
        return f"{product.price_cents / 100:.2f}"

    def cart_unit_cents(self, product: Product) -> int:
        """The price on sale; but `line_cents` takes the discount off again."""
        return round(product.price_cents * (100 - product.discount_percent) / 100)

    def search(self, text: str) -> list[Product]:
        """Patterns are welcome now; but an unescaped `(` of someone who just types is no pattern."""
        wanted = re.compile(text, re.IGNORECASE)
        return [product for product in PRODUCTS.values() if wanted.search(product.title)]

    def review_queries(self) -> int:
        """The object mapper loads each author by itself: one query for the page and one a review."""
        return 1 + REVIEWS_EACH

    def page_headers(self) -> tuple[Header, ...]:
        """The new template engine sets its own headers, and nobody carried the policy over."""
        return (("X-Content-Type-Options", "nosniff"),)


BUILDS: dict[str, type[OldBuild]] = {build.name: build for build in (OldBuild, NewBuild)}


@dataclass(frozen=True, slots=True)
class Sign:
    """One place where a report must show a regression, in the report's own words.

    `kind` is one of `replay.findings.KINDS`; for `slower` the path is empty.
    """

    endpoint: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Regression:
    """One thing that the new build breaks, and every place where that shows.

    `follows` are places that may show it as well, depending on how far a report follows a failure.
    """

    name: str
    signs: tuple[Sign, ...]
    follows: tuple[Sign, ...] = ()


PLANTED = (
    Regression(
        "a field of the product list renamed: in_stock → available",
        (
            Sign("GET /products", "$.products[*].in_stock", "missing"),
            Sign("GET /products", "$.products[*].available", "extra"),
        ),
    ),
    Regression(
        "the price on a product's page a string, no longer a number",
        (Sign("GET /products/{id}", "$.price", "type"),),
    ),
    Regression(
        "a wrong total for carts with a discounted product (one in five)",
        (
            Sign("POST /cart/items", "$.total", "value"),
            Sign("GET /cart", "$.total", "value"),
            Sign("POST /checkout", "$.total", "value"),
            Sign("GET /orders/{id}", "$.total", "value"),
        ),
    ),
    Regression(
        "the home page without its Content-Security-Policy header",
        (Sign("GET /", "headers.content-security-policy", "missing"),),
    ),
    Regression(
        "a 500 for searches with an unclosed parenthesis",
        (Sign("GET /search", "status", "status"),),
        # The body of the failure is another one.
        tuple(
            Sign("GET /search", f"$.{field}", kind)
            for kind, fields in (("missing", ("query", "count", "results", "took_ms")), ("extra", ("error",)))
            for field in fields
        ),
    ),
    Regression(
        "the reviews ten times slower",
        (Sign("GET /products/{id}/reviews", "", "slower"),),
    ),
)
