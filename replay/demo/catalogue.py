"""What the shop sells: a catalogue made by rule, so that every build on every machine sells the same.

Money is in whole cents; only the answers turn it into a decimal number.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

PAGE_SIZE = 12
REVIEWS_EACH = 9

_KINDS = (
    "Lamp", "Chair", "Desk", "Kettle", "Backpack", "Headphones", "Keyboard", "Mug", "Clock", "USB Cable (2m)",
)  # fmt: skip
_STYLES = (
    "Nordic", "Compact", "Classic", "Café", "Studio", "Travel",
    "Bamboo", "Steel", "Soft", "Bright", "Quiet", "Retro",
)  # fmt: skip
_TAGS = ("home", "office", "gift", "sale", "eco", "new", "popular", "outdoor", "kids")
_AUTHORS = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Katherine", "Niklaus", "Radia", "Tony")
_VERDICTS = (
    "does what it says",
    "better than the last one",
    "arrived late but works",
    "would buy again",
    "a bit loud",
)
_FIRST_ID = 1001


@dataclass(frozen=True, slots=True)
class Product:
    """One thing on sale; `discount_percent` is 0 for most and 15 for one in five."""

    id: int
    title: str
    price_cents: int
    discount_percent: int
    in_stock: bool
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """What one customer said of one product."""

    author: str
    stars: int
    text: str


def _pick(choices: int, *what: object) -> int:
    """A number below `choices` that depends on `what` only (`hash()` differs between processes)."""
    digest = blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % choices


def _product(position: int) -> Product:
    number = _FIRST_ID + position
    style, kind = _STYLES[position // len(_KINDS)], _KINDS[position % len(_KINDS)]
    first_tag = _pick(len(_TAGS), "tags", number)
    return Product(
        id=number,
        title=f"{style} {kind}",
        price_cents=900 + 10 * _pick(2400, "price", number) + 9,
        discount_percent=15 if position % 5 == 2 else 0,
        in_stock=_pick(10, "stock", number) > 0,
        tags=tuple(_TAGS[(first_tag + step) % len(_TAGS)] for step in range(5)),
    )


PRODUCTS: dict[int, Product] = {
    product.id: product for product in (_product(position) for position in range(len(_STYLES) * len(_KINDS)))
}
PAGES = -(-len(PRODUCTS) // PAGE_SIZE)


def page(number: int) -> list[Product]:
    """The products on page `number`, counted from 1; empty beyond the last."""
    first = (number - 1) * PAGE_SIZE
    return list(PRODUCTS.values())[first : first + PAGE_SIZE]


def reviews(product: Product) -> list[Review]:
    """The reviews of one product, newest first."""
    return [
        Review(
            author=_AUTHORS[(product.id + position) % len(_AUTHORS)],
            stars=1 + _pick(5, "stars", product.id, position),
            text=f"{product.title}: {_VERDICTS[_pick(len(_VERDICTS), 'text', product.id, position)]}.",
        )
        for position in range(REVIEWS_EACH)
    ]
