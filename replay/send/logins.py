"""A login of the user's own before each session: one exchange with the target, outside the recording.

It is run in a greenlet of its own (Locust has made sockets cooperative), and the session's arrivals wait for it. It
is no arrival: it has no row, and the books count what it was for only where it failed.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from replay.config import Config
from replay.errors import ConfigError
from replay.plan.answers import Answer
from replay.plan.dispatch import share_of
from replay.plan.places import Place
from replay.send.preparing import filled, users_of
from replay.send.target import Endpoint

_USER = re.compile(r"\{user\.([^{}]+)\}")
_PLACEHOLDER = re.compile(r"\{(?:user|env)\.[^{}]+\}")
_IN_TARGETS = "!$%&'()*+,;=:@/?~-._"


class LoginError(Exception):
    """The login gave no credential; the text says why."""


class LoggedIn(NamedTuple):
    """What the login gave: the header's value (`None`: cookies only), and the cookies set, by name."""

    value: str | None
    cookies: Mapping[str, str]


class Login:
    """`[auth.login]` for one target. `header` is where the credential goes; `everywhere`: also where none was."""

    def __init__(self, config: Config, endpoint: Endpoint, authority: str) -> None:
        auth = config.auth
        table = auth["login"]
        self.header = auth.get("header", "Authorization")
        self.everywhere = auth.get("on", "recorded") == "all"
        self._value = filled(auth.get("value", "Bearer {login}"), "[auth] value")
        self._method, self._target = table.get("method", "POST"), table["target"]
        body = table.get("body", "")
        is_json = body[:1] == "[" or (body[:1] == "{" and not _PLACEHOLDER.match(body))
        kind = "application/json" if is_json else "application/x-www-form-urlencoded"
        self._kind = table.get("content_type", kind)
        self._escape = _escaping(self._kind)
        self._body = filled(body, "[auth.login] body", self._escape)
        self._take = place_of(table["take"]) if "take" in table else None
        self._users = users_of(config)
        self._check_columns(f"{self._target} {self._body}")
        self._endpoint, self._authority = endpoint, authority

    def run(self, session_id: str) -> LoggedIn:
        """Log the session's test user in. `LoginError` where that gives nothing."""
        user = self._users[share_of(session_id, len(self._users))] if self._users else {}
        target = _with_user(self._target, user, lambda value: quote(value, safe=""))
        answer, status = self._exchange(
            quote(target, safe=_IN_TARGETS), _with_user(self._body, user, self._escape)
        )
        if status >= 400:
            raise LoginError(f"login answered {status}")
        cookies = {name: value for name, value, gone in answer.cookies() if not gone}
        if self._take is None:
            return LoggedIn(None, cookies)
        found = answer.find(self._take, "")
        if found is None:
            raise LoginError(f"login answered {status} without {self._take.erased}")
        return LoggedIn(self._value.replace("{login}", found), cookies)

    def _exchange(self, target: str, body: str) -> tuple[Answer, int]:
        host, port = self._endpoint.address[:2]
        tls = self._endpoint.tls
        connection = (
            http.client.HTTPConnection(host, port, timeout=30)
            if tls is None
            else http.client.HTTPSConnection(
                self._endpoint.server_name or host, port, timeout=30, context=tls
            )
        )
        try:
            connection.request(
                self._method, target, body.encode(), {"Host": self._authority, "Content-Type": self._kind}
            )
            with connection.getresponse() as answer:
                return Answer(answer.getheaders(), answer.read()), answer.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LoginError(f"login failed, {error}") from None
        finally:
            connection.close()

    def _check_columns(self, text: str) -> None:
        columns = set(self._users[0]) if self._users else set()
        for name in _USER.findall(text):
            if name not in columns:
                known = f"its columns are {', '.join(sorted(columns))}" if columns else "there is none"
                raise ConfigError(f"[auth.login] asks for {{user.{name}}} of [auth] users: {known}")


def _with_user(text: str, user: Mapping[str, str], escape: Callable[[str], str]) -> str:
    return _USER.sub(lambda found: escape(user[found[1]] or ""), text)


def _escaping(kind: str) -> Callable[[str], str]:
    """How a value is written inside a body of that type."""
    if "json" in kind.lower():
        return lambda value: json.dumps(value, ensure_ascii=False)[1:-1]
    return quote_plus if "urlencoded" in kind.lower() else str


def place_of(text: str) -> Place:
    """`$.data.token` or `header x-token` as a place; `ConfigError` for anything else."""
    kind, _, name = text.partition(" ")
    if kind == "header" and name:
        return Place("header", (name.lower(),))
    if re.fullmatch(r"\$(\.[^.\[\]]+)+", text):
        return Place("$", tuple(text.split(".")[1:]))
    raise ConfigError(f'[auth.login] take = {text!r}: write "$.token" or "header x-token"')
