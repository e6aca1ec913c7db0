"""The shop without a socket: a request goes in, a response comes out, and the state has changed.

Nothing here waits, reads a clock or draws from an unseeded random source: `now` and `random` come in
through the call, and a response says how many database queries it stands for, so that the edge (`shop`)
can take as long as they would.

The noise is honest, as real services have it: instants, request ids, tokens, tags that come out of a set in
any order, recommendations that are drawn, tracking numbers of another company.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from random import Random
from urllib.parse import parse_qs, urlsplit

from replay.demo import catalogue
from replay.demo.builds import Header, Json, OldBuild, money
from replay.demo.catalogue import PAGES, PRODUCTS, Product


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What the shop answers, and how many database queries it took."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    queries: int = 0


@dataclass(slots=True)
class Session:
    """One customer, logged in: a cart (product id → quantity) and the orders so far."""

    user: str
    cart: dict[int, int] = field(default_factory=dict)
    orders: dict[str, Json] = field(default_factory=dict)


@dataclass(slots=True)
class Shop:
    """The state of one running shop.

    `trust_tokens` is the bypass that many staging environments have: whatever credential comes opens a
    session of its own. The demonstration does without, as logins hand out tokens that replay carries on; it is
    for replaying without them.
    """

    build: OldBuild
    random: Random
    trust_tokens: bool = False
    started: float = 0.0
    sessions: dict[str, Session] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way through the shop."""

    request: Request
    shop: Shop
    now: float
    ids: tuple[str, ...]
    query: dict[str, str]

    @property
    def build(self) -> OldBuild:
        return self.shop.build


class RefusedError(Exception):
    """A request that the shop turns down, with the status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


View = Callable[[Call], Response]


def handle(request: Request, shop: Shop, now: float) -> Response:
    """Answer one request at the instant `now` (seconds since the epoch); never raises."""
    try:
        response = _route(request, shop, now)
    except RefusedError as refusal:
        response = _json({"error": refusal.reason}, refusal.status)
    except Exception:
        # A crash in a view is a 500, as in any framework; its text is not for customers.
        response = _json({"error": "internal error"}, 500)
    request_id = f"{shop.random.getrandbits(64):016x}"
    return replace(response, headers=(*response.headers, ("X-Request-Id", request_id)))


def _route(request: Request, shop: Shop, now: float) -> Response:
    parts = urlsplit(request.target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    matches = [
        (method, view, found) for method, path, view in ROUTES if (found := path.fullmatch(parts.path))
    ]
    if not matches:
        raise RefusedError(404, "no such page")
    for method, view, found in matches:
        if method == request.method:
            return view(Call(request, shop, now, found.groups(), query))
    raise RefusedError(405, "method not allowed")


# --- views -----------------------------------------------------------------------------------------


def home(call: Call) -> Response:
    featured = "".join(f"<li>{escape(product.title)}</li>" for product in catalogue.page(1))
    page = f"<!doctype html><html><head><title>Shop</title></head><body><ul>{featured}</ul></body></html>\n"
    headers = (("Content-Type", "text/html; charset=utf-8"), *call.build.page_headers())
    return Response(200, headers, page.encode(), queries=1)


def health(call: Call) -> Response:
    return _json({"status": "ok", "uptime_s": round(call.now - call.shop.started, 6)})


def login(call: Call) -> Response:
    """Open a session. Any password will do: the customers are made up, and staging sees pseudonyms."""
    form = _body(call)
    user, password = form.get("user"), form.get("password")
    if not isinstance(user, str) or not password:
        raise RefusedError(400, "user and password are needed")
    token = f"{call.shop.random.getrandbits(128):032x}"
    call.shop.sessions[token] = Session(user)
    answer: Json = {
        "token": token,
        "user": {"name": user, "group": "customer"},
        "expires_at": _iso(call.now + 3600),
    }
    cookie = ("Set-Cookie", f"session={token}; Path=/; HttpOnly; SameSite=Lax")
    return _json(answer, headers=[cookie], queries=1)


def product_list(call: Call) -> Response:
    number = _integer(call.query.get("page", "1"), "page")
    entries = [call.build.listing_entry(product) for product in catalogue.page(number)]
    answer: Json = {"page": number, "pages": PAGES, "products": entries, "served_at": _iso(call.now)}
    return _json(answer, headers=[("Cache-Control", "public, max-age=60")], queries=1)


def search(call: Call) -> Response:
    text = call.query.get("q", "")
    if not text:
        raise RefusedError(400, "q is needed")
    found = call.build.search(text)
    answer: Json = {
        "query": text,
        "count": len(found),
        "results": [_brief(product) for product in found[:10]],
        "took_ms": round(call.shop.random.uniform(1, 9), 3),
    }
    return _json(answer, queries=1)


def product_page(call: Call) -> Response:
    product = _product(call.ids[0])
    tags = list(product.tags)
    call.shop.random.shuffle(tags)  # they come out of a set
    answer: Json = {
        "id": product.id,
        "title": product.title,
        "description": f"The {product.title.lower()} for people who know what they want.",
        "price": call.build.shown_price(product),
        "discount_percent": product.discount_percent,
        "tags": tags,
        "served_at": _iso(call.now),
    }
    return _json(answer, headers=[("Cache-Control", "public, max-age=60")], queries=1)


def product_reviews(call: Call) -> Response:
    product = _product(call.ids[0])
    found = catalogue.reviews(product)
    answer: Json = {
        "product_id": product.id,
        "average": round(sum(review.stars for review in found) / len(found), 2),
        "reviews": [{"author": r.author, "stars": r.stars, "text": r.text} for r in found],
    }
    return _json(answer, queries=call.build.review_queries())


def recommendations(call: Call) -> Response:
    drawn = call.shop.random.sample(list(PRODUCTS.values()), 4)
    answer: Json = {
        "model": "weekly",
        "items": [_brief(product) for product in drawn],
        "served_at": _iso(call.now),
    }
    return _json(answer, queries=1)


def add_to_cart(call: Call) -> Response:
    session, form = _session(call), _body(call)
    product = _product(str(form.get("product_id")))
    quantity = form.get("quantity", 1)
    if not isinstance(quantity, int) or not 1 <= quantity <= 99:
        raise RefusedError(422, "quantity must be between 1 and 99")
    session.cart[product.id] = session.cart.get(product.id, 0) + quantity
    return _json(_cart(call, session), 201, queries=1)


def show_cart(call: Call) -> Response:
    return _json(_cart(call, _session(call)), queries=1)


def checkout(call: Call) -> Response:
    session = _session(call)
    if not session.cart:
        raise RefusedError(409, "the cart is empty")
    number = _order_id(call.shop)
    order: Json = {
        "id": number,
        "status": "paid",
        **_cart(call, session),
        "tracking_number": f"TRK{call.shop.random.randrange(10**12):012d}",
        "created_at": _iso(call.now),
    }
    session.orders[number] = order
    session.cart = {}
    return _json(order, 201, headers=[("Location", f"/orders/{number}")], queries=1)


def show_order(call: Call) -> Response:
    order = _session(call).orders.get(call.ids[0])
    if order is None:
        raise RefusedError(404, "no such order")
    return _json(order, queries=1)


def _routes(*table: tuple[str, str, View]) -> tuple[tuple[str, re.Pattern[str], View], ...]:
    return tuple((method, re.compile(path.replace("{id}", "([^/]+)")), view) for method, path, view in table)


ROUTES = _routes(
    ("GET", "/", home),
    ("GET", "/health", health),
    ("POST", "/login", login),
    ("GET", "/products", product_list),
    ("GET", "/search", search),
    ("GET", "/products/{id}", product_page),
    ("GET", "/products/{id}/reviews", product_reviews),
    ("GET", "/recommendations", recommendations),
    ("POST", "/cart/items", add_to_cart),
    ("GET", "/cart", show_cart),
    ("POST", "/checkout", checkout),
    ("GET", "/orders/{id}", show_order),
)


# --- what the views share --------------------------------------------------------------------------


def _order_id(shop: Shop) -> str:
    """A number that was not given before, other in every running shop: what staging never heard of."""
    return f"A-{shop.random.randrange(10**9):09d}"


def _cart(call: Call, session: Session) -> Json:
    lines = [(PRODUCTS[number], quantity) for number, quantity in session.cart.items()]
    total = sum(call.build.line_cents(product, quantity) for product, quantity in lines)
    return {
        "lines": [
            {
                "product_id": product.id,
                "title": product.title,
                "quantity": quantity,
                "unit_price": money(product.price_cents),
            }
            for product, quantity in lines
        ],
        "total": money(total),
    }


def _session(call: Call) -> Session:
    token = _credential(call.request.headers)
    if call.shop.trust_tokens and token:
        return call.shop.sessions.setdefault(token, Session("someone"))
    try:
        return call.shop.sessions[token]
    except KeyError:
        raise RefusedError(401, "log in first") from None


def _credential(headers: dict[str, str]) -> str:
    """The token of an app (bearer) or of a browser (cookie); empty when there is neither."""
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    _, _, cookie = headers.get("cookie", "").partition("session=")
    return bearer or cookie.partition(";")[0]


def _product(number: str) -> Product:
    product = PRODUCTS.get(_integer(number, "product id"))
    if product is None:
        raise RefusedError(404, "no such product")
    return product


def _brief(product: Product) -> Json:
    return {"id": product.id, "title": product.title, "price": money(product.price_cents)}


def _integer(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise RefusedError(400, f"{name} must be a number")
    return int(text)


def _body(call: Call) -> Json:
    try:
        form = json.loads(call.request.body)
    except ValueError:
        form = None
    if not isinstance(form, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return form


def _json(answer: Json, status: int = 200, *, headers: Sequence[Header] = (), queries: int = 0) -> Response:
    body = json.dumps(answer, ensure_ascii=False).encode()
    return Response(status, (("Content-Type", "application/json"), *headers), body, queries)


def _iso(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="microseconds")
