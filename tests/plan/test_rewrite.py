"""Rewrites as a table: rule, request before, request after."""

from __future__ import annotations

from typing import Any

import pytest

from replay.errors import ConfigError
from replay.plan.dispatch import share_of
from replay.plan.rewrite import Parts, Rewriter, compile_rewrites

FORM = ("Content-Type", "application/x-www-form-urlencoded")
JSON = ("Content-Type", "application/json")
USERS = [{"name": "ann", "password": "s3 cret"}]


def parts(target: str = "/a?b=1", headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> Parts:
    return Parts(target, headers, body)


def rewritten(before: Parts, *tables: dict[str, Any], endpoint: str = "POST /a") -> Parts:
    rules = compile_rewrites(
        tables, lambda name: lambda session, given: given._replace(target=f"/{name}/{session}")
    )
    return Rewriter(rules, USERS, {"TOKEN": "t0"}).apply("s", share_of, endpoint, before)


TABLE = [
    pytest.param({"header": "X-Env", "set": "new"}, parts(headers=(("a", "b"), ("x-env", "old"))),
                 parts(headers=(("a", "b"), ("x-env", "new"))), id="set a header in its place"),
    pytest.param({"header": "Authorization", "set": "Bearer {env.TOKEN}"}, parts(),
                 parts(headers=(("Authorization", "Bearer t0"),)), id="add a header, from the environment"),
    pytest.param({"header": "X-Env", "remove": True}, parts(headers=(("x-ENV", "1"), ("b", "2"))),
                 parts(headers=(("b", "2"),)), id="remove a header"),
    pytest.param({"header": "user-agent", "replace": r"/(\d+)", "with": r"-\1"},
                 parts(headers=(("User-Agent", "x/2"),)), parts(headers=(("User-Agent", "x-2"),)), id="replace"),
    pytest.param({"header": "a", "replace": "x", "with": r"{user.password}\\"}, parts(headers=(("A", "1x2"),)),
                 parts(headers=(("A", "1s3 cret\\2"),)), id="what is filled in is no template"),
    pytest.param({"query": "b", "set": "x y"}, parts("/a?c=%7e&b=1"), parts("/a?c=%7e&b=x+y"), id="set a parameter"),
    pytest.param({"query": "d", "set": "é"}, parts("/a"), parts("/a?d=%C3%A9"), id="add a parameter"),
    pytest.param({"query": "b", "remove": True}, parts("/a?b=1"), parts("/a"), id="remove a parameter"),
    pytest.param({"form": "password", "set": "{user.password}"}, parts(headers=(FORM,), body=b"u=%7e&password=x"),
                 parts(headers=(FORM,), body=b"u=%7e&password=s3+cret"), id="a test user's password in a form"),
    pytest.param({"form": "u", "remove": True}, parts(headers=(FORM,), body=b"u=1&v=2"),
                 parts(headers=(FORM,), body=b"v=2"), id="remove a field"),
    pytest.param({"json": "$.a[*].p", "set": 'x"'}, parts(headers=(JSON,), body=b'{ "a": [{"p" : 1}, {"p": "2"}]}'),
                 parts(headers=(JSON,), body=b'{ "a": [{"p" : "x\\""}, {"p": "x\\""}]}'), id="set in JSON"),
    pytest.param({"json": "$.a.q", "set": "1"}, parts(headers=(JSON,), body=b'{"a": {}}'),
                 parts(headers=(JSON,), body=b'{"a":{"q":"1"}}'), id="add to JSON"),
    pytest.param({"json": "$.a[*].p", "remove": True}, parts(headers=(JSON,), body=b'{"a":[{"p":1},{"q":2}]}'),
                 parts(headers=(JSON,), body=b'{"a":[{},{"q":2}]}'), id="remove from JSON"),
    pytest.param({"part": "target", "replace": "^/a", "with": "/v2/a"}, parts(), parts("/v2/a?b=1"), id="target"),
    pytest.param({"part": "body", "replace": "prod", "with": "staging"}, parts(body=b"\xffprod"),
                 parts(body=b"\xffstaging"), id="body"),
    pytest.param({"endpoint": "GET *", "query": "b", "remove": True}, parts(), parts(), id="another endpoint"),
    pytest.param({"call": "f"}, parts(), parts("/f/s"), id="a function"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "before", "after"), TABLE)
def test_a_rule(rule: dict[str, Any], before: Parts, after: Parts) -> None:
    assert rewritten(before, rule) == after


def test_rules_apply_in_order() -> None:
    assert (
        rewritten(parts(), {"query": "b", "set": "2"}, {"part": "target", "replace": "2", "with": "3"}).target
        == "/a?b=3"
    )


WRONG = [
    ({"header": "a"}, "write one of"),
    ({"header": "a", "query": "b", "set": "c"}, "write one of"),
    ({"header": "a", "replace": "b"}, "write one of"),
    ({"header": "a", "sett": "b"}, "no key 'sett'"),
    ({"header": "a", "set": 1}, "set must be a text"),
    ({"part": "head", "replace": "a", "with": "b"}, "part is"),
    ({"json": "a", "set": "b"}, "json is a path"),
    ({"header": "a", "replace": "(", "with": "b"}, "no regular expression"),
    ({"call": "f", "set": "b"}, "call stands alone"),
    ({"header": "a", "set": "{user.nothing}"}, "no such column"),
    ({"header": "a", "set": "{env.NOTHING}"}, "no such variable"),
]


@pytest.mark.parametrize(("rule", "says"), WRONG)
def test_a_wrong_rule_is_refused(rule: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rewritten(parts(), rule)


@pytest.mark.parametrize("template", ["\\9", "\\g<no>", "\\g<"])
def test_a_template_that_cannot_be_is_said_at_once(template: str) -> None:
    with pytest.raises(ConfigError, match=r"\[\[rewrite.rule\]\] 1: with = "):
        compile_rewrites([{"header": "a", "replace": "(?i)x(y)", "with": template}], lambda name: None)


def test_a_backslash_that_is_filled_in_is_one() -> None:
    rules = compile_rewrites([{"header": "a", "replace": "x", "with": "{env.P}"}], lambda name: None)
    before = parts(headers=(("a", "x"),))
    after = Rewriter(rules, (), {"P": r"\1\n"}).apply("s", share_of, "GET /", before)
    assert after.headers == (("a", r"\1\n"),)
