"""Redaction: secrets leave, their shape and their equality stay.

A secret becomes a pseudonym (`replay.capture.pseudonyms`): the same secret becomes the same pseudonym wherever
it stands (a token in a login's JSON, in the next request's header, in a query string), of the same length and
shape, so that applications still parse it and the correlation of later requests still works.

A policy names what is redacted: the operator's rules first (`replay.capture.rules`), then the detectors
(`replay.capture.detectors`), in order. A body without secrets is not even copied; one in a content-encoding is
opened for the search, and closed again only where something was replaced.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from replay.capture.codings import close_body, codings_of, open_body
from replay.capture.detectors import DETECTORS
from replay.capture.parts import PHONE_ENDINGS, SECRET_ENDINGS, Part, Secrets
from replay.capture.pseudonyms import pseudonym
from replay.capture.rules import Applied, Rule, compile_rules
from replay.model import Exchange, Header

__all__ = ["Finding", "Policy", "Redactor", "pseudonym", "with_content_length"]

SECRET_NAMES = frozenset(
    {
        *(
            "accesskey",
            "apikey",
            "assertion",
            "authenticitytoken",
            "authorization",
            "awsaccesskeyid",
            "bearer",
        ),
        *(
            "clientsecret",
            "credential",
            "credentials",
            "csrf",
            "csrfmiddlewaretoken",
            "cvc",
            "cvv",
            "jsessionid",
        ),
        *(
            "jwt",
            "otp",
            "passcode",
            "passphrase",
            "passwd",
            "password",
            "phpsessid",
            "pin",
            "privatekey",
            "pwd",
        ),
        *("secret", "secretkey", "session", "sessionid", "sessionkey", "sid", "sig", "signature", "ssn"),
        *("subscriptionkey", "token", "verificationcode", "xsrf"),
    }
)
"""Names whose values are secrets: of parameters, JSON members, headers; lower case, without `-` and `_`."""

SECRET_HEADERS = frozenset(
    {"x-amz-security-token", "x-csrftoken", "private-token", "x-session", "x-auth-key"}
)
"""Headers that hold secrets beside those whose name says so (see `SECRET_NAMES`): whole values."""

_OPAQUE_TYPES = (
    "image/",
    "audio/",
    "video/",
    "font/",
    "application/pdf",
    "application/zip",
    "application/wasm",
)
_GENERATION = "2"
"""Part of every fingerprint: raised when a detector or the drawing of pseudonyms changes what comes out."""

_ON_REQUEST = ("ip",)
_MOST_PLACES = 2000

Finding = tuple[str, str]
"""The detector (or rule) and the place: `header cookie`, `target access_token`, `body password`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is redacted: rules first, then the detectors by name, in order, and the names that mark a secret.

    `actions` says where a detector's finds are masked instead of replaced.
    """

    detectors: tuple[str, ...] = tuple(name for name in DETECTORS if name not in _ON_REQUEST)
    names: frozenset[str] = SECRET_NAMES
    headers: frozenset[str] = SECRET_HEADERS
    rules: tuple[Rule, ...] = ()
    actions: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(tables: Iterable[Mapping[str, Any]]) -> Policy:
        """The policy of replay.toml's `[[redact]]` tables on top of the defaults; raises `ConfigError`."""
        rules = compile_rules(tables, DETECTORS)
        switches = {rule.pattern: rule.action for rule in reversed(rules) if rule.kind == "detector"}
        on = {*Policy().detectors, *switches} - {
            name for name, action in switches.items() if action == "keep"
        }
        return Policy(
            detectors=tuple(name for name in DETECTORS if name in on),
            rules=tuple(rule for rule in rules if rule.kind != "detector"),
            actions=tuple(sorted((name, action) for name, action in switches.items() if action == "mask")),
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever what is redacted changes."""
        rules = (f"{rule.kind}={rule.pattern}={rule.action}" for rule in self.rules)
        actions = (f"{name}={action}" for name, action in self.actions)
        names = (*sorted(self.names), *SECRET_ENDINGS, *PHONE_ENDINGS)
        groups = ((_GENERATION,), self.detectors, names, sorted(self.headers), rules, actions)
        return hashlib.sha256("\0/\0".join("\0".join(group) for group in groups).encode()).hexdigest()[:16]


class Redactor:
    """Applies a policy. `counts` tells how much each detector replaced; pure but for these counts.

    For results of a run: `begin()`, then `message("", headers, body)` for each answer.
    """

    def __init__(self, policy: Policy, key: bytes, secrets: Secrets | None = None) -> None:
        self.policy = policy
        self.key_id = hmac.digest(key, b"key id", "sha256").hex()[:16]
        self.counts: Counter[str] = Counter()
        self._secrets = secrets or Secrets(
            policy.names, policy.headers, key, dict(policy.actions), frozenset(policy.detectors)
        )
        self._detectors = [(name, DETECTORS[name]) for name in policy.detectors]
        self._rules = [Applied(rule) for rule in policy.rules]

    def exchange(self, exchange: Exchange) -> Exchange:
        """The exchange without its secrets."""
        self.begin()
        whole = not exchange.truncated
        target, request_headers, request_body = self.message(
            exchange.target, list(exchange.request_headers), exchange.request_body, whole=whole
        )
        _, response_headers, response_body = self.message(
            "", list(exchange.response_headers), exchange.response_body, whole=whole
        )
        return replace(
            exchange,
            target=target,
            request_headers=tuple(request_headers),
            request_body=request_body,
            response_headers=tuple(response_headers),
            response_body=response_body,
        )

    def begin(self) -> None:
        """Begin another exchange: its request comes first, then its response, which may echo its secrets."""
        self._secrets.begin()

    def take_found(self) -> list[Finding]:
        """What was replaced, and where, since this was last asked."""
        found = self._secrets.found[:]
        self._secrets.found.clear()
        return found

    def target(self, target: str) -> str:
        """A target without its secrets, for a look that is not counted."""
        counts, self.counts = self.counts, Counter()
        try:
            return self.message(target, [], None)[0]
        finally:
            self.counts = counts

    def message(
        self, target: str, headers: list[Header], body: bytes | None, *, whole: bool = True
    ) -> tuple[str, list[Header], bytes | None]:
        """Target, headers and body without their secrets; `headers` is the caller's to give away.

        `whole` tells that the body is complete: only then its length is Content-Length. A body that claims a
        content-encoding and breaks within it cannot be searched, and is left out (`None`).
        """
        codings = codings_of(headers)
        plain = open_body(body, codings) if body and not _is_opaque(headers) else None
        if plain is not None and plain.broken:
            self.counts["unreadable bodies"] += 1
            return *self._search(Part(target, headers, None)), None
        part = Part(target, headers, plain.data if plain else None)
        target, headers = self._search(part)
        if plain is None or part.body is None:
            return target, headers, body
        # Of a cut body in a coding, only what could be opened was searched: only that is kept.
        if part.body is plain.data and (whole or not plain.codings):
            return target, headers, body
        closed = close_body(part.body, plain)
        if whole and len(closed) != len(body or b""):
            headers = with_content_length(headers, len(closed))
        return target, headers, closed

    def _search(self, part: Part) -> tuple[str, list[Header]]:
        for rule in self._rules:
            found = rule.apply(part, self._secrets)
            if found:
                self.counts["rules"] += found
        for name, detect in self._detectors:
            self._secrets.detector = name
            found = detect(part, self._secrets)
            if found:
                self.counts[name] += found
        return part.target, part.headers


def with_content_length(headers: Iterable[Header], length: int) -> list[Header]:
    """The headers with Content-Length, where there is one, saying `length`."""
    return [(n, str(length)) if n.lower() == "content-length" else (n, v) for n, v in headers]


def _is_opaque(headers: Sequence[Header]) -> bool:
    kind = next((value for name, value in headers if name.lower() == "content-type"), "").lower()
    return kind.startswith(_OPAQUE_TYPES) and "svg" not in kind
