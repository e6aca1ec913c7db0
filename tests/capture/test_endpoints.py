"""Endpoint names: by form, by company, by the user's word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.capture.endpoints import Templater, path_of

BY_FORM = [
    ("/", "/"),
    ("/orders/1042", "/orders/{id}"),
    ("/orders/1042/items/7?page=2", "/orders/{id}/items/{id}"),
    ("/orders/", "/orders/"),
    ("/users/550e8400-e29b-41d4-a716-446655440000", "/users/{uuid}"),
    ("/users/550E8400-E29B-41D4-A716-446655440000", "/users/{uuid}"),
    ("/reports/2024-01-31", "/reports/{date}"),
    ("/reports/2024-01", "/reports/{date}"),
    ("/objects/507f1f77bcf86cd799439011", "/objects/{hash}"),
    ("/x/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/x/{token}"),
    ("/customers/cus_9s6XKzkNRiz8i3", "/customers/{token}"),
    ("/watch/dQw4w9WgXcQ", "/watch/{token}"),
    ("/verify/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "/verify/{token}"),
    ("/b64/c29tZSBvcGFxdWU=", "/b64/{token}"),
    ("/orders/order-1042", "/orders/{id}"),
    ("/mail/bob%40example.com", "/mail/{email}"),
    ("/mail/bob@example.com", "/mail/{email}"),
    ("/static/main.8f3b2c1d9a0b.js", "/static/main.{hash}.js"),
    ("/images/12345.jpg", "/images/{id}.jpg"),
    ("/app;jsessionid=ABC123/x", "/app/x"),
    ("http://shop.example/orders/1?x#y", "/orders/{id}"),
    ("http://shop.example", "/"),
    ("//double//1", "//double//{id}"),
    ("/#fragment", "/"),
]
NAMES = [
    *("/api/v1/users", "/v2.1/status", "/en-US/about", "/getUserProfileById", "/internationalization"),
    *("/how-to-install-python-3-on-ubuntu-22", "/OAuth2CallbackHandler", "/app.js", "/sitemap.xml", "/utf8"),
    *("/x86_64", "/iphone-15-pro", "/a/b/c", "/index-of-things.html", "/accessibility-statement", "/%7Euser"),
]


@pytest.mark.parametrize(("target", "path"), [*BY_FORM, *((name, name) for name in NAMES)])
def test_parameters_are_known_by_their_form(target: str, path: str) -> None:
    templater = Templater()
    assert templater.endpoint("GET", target) == f"GET {path}"
    templater.observe("GET", target)
    assert templater.endpoint("GET", target) == f"GET {path}"


def test_targets_without_a_path() -> None:
    assert Templater().endpoint("OPTIONS", "*") == "OPTIONS *"
    assert Templater().endpoint("CONNECT", "host:443") == "CONNECT host:443"


def test_many_names_at_one_place_are_slugs_but_a_frequent_one_is_a_name() -> None:
    templater = Templater()
    for number in range(200):
        templater.observe("GET", f"/users/{_word(number)}/posts")
        templater.observe("GET", "/users/me/posts")
        templater.observe("GET", "/about")
    assert templater.endpoint("GET", "/users/somebody/posts") == "GET /users/{slug}/posts"
    assert templater.endpoint("GET", f"/users/{_word(3)}/posts") == "GET /users/{slug}/posts"
    assert templater.endpoint("GET", "/users/me/posts") == "GET /users/me/posts"
    assert templater.endpoint("GET", "/users/42/posts") == "GET /users/{id}/posts"
    assert templater.endpoint("GET", "/about") == "GET /about"


def test_few_names_stay_names() -> None:
    templater = Templater()
    for number in range(60):
        templater.observe("GET", f"/pages/{_word(number)}")
    assert templater.endpoint("GET", f"/pages/{_word(1)}") == f"GET /pages/{_word(1)}"


def test_routes_of_the_user_win() -> None:
    routes = [("GET", "/users/{name}"), ("*", "/files/*"), ("POST", "/v1/{a}.{b}")]
    templater = Templater(routes)
    assert templater.endpoint("GET", "/users/alice") == "GET /users/{name}"
    assert templater.endpoint("GET", "/users/42?x") == "GET /users/{name}"
    assert templater.endpoint("POST", "/users/42") == "POST /users/{id}"
    assert templater.endpoint("PUT", "/files/a/b/c") == "PUT /files/*"
    assert templater.endpoint("POST", "/v1/x.y") == "POST /v1/{a}.{b}"


def test_memory_is_bounded() -> None:
    templater = Templater(most_names=10)
    for number in range(5000):
        templater.observe("GET", f"/{_word(number)}/{_word(number * 7)}/{_word(number * 31)}")
    assert templater._nodes < 200
    deep = "/x" * 100
    assert templater.endpoint("GET", deep).endswith("/{path}")


SEGMENTS = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_characters="/?#"), max_size=30),
    st.sampled_from(["1", "a", "me", "{id}", "x.js", "%2F", "ab12cd34ef56", "2024-01-01", "dQw4w9WgXcQ"]),
)
PATHS = st.lists(SEGMENTS, max_size=5).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS, max_size=30), PATHS)
def test_a_name_is_its_own_name(paths: list[str], path: str) -> None:
    templater = Templater(most_names=3)
    for each in paths:
        templater.observe("GET", each)
    name = templater.endpoint("GET", path)
    assert name.startswith("GET /")
    assert templater.endpoint("GET", name.removeprefix("GET ")) == name


@given(st.text(max_size=60))
def test_any_target_gets_a_name(target: str) -> None:
    templater = Templater()
    templater.observe("GET", target)
    assert templater.endpoint("GET", target).startswith("GET ")
    path = path_of(target)
    assert path is None or "?" not in path


def _word(number: int) -> str:
    return "".join("bcdfghjklmnpqrstvwxz"[(number // 20**i) % 20] + "aeiou"[number % 5] for i in range(3))
