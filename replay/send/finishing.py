"""The last touch to a request, at the instant it is sent: credentials of now, the user's function, a signature.

These are not made ahead: a token may have been renewed, and a signature counts from its timestamp, since the
request was planned.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import gevent
import msgpack

from replay.config import Config
from replay.errors import ConfigError, TargetError
from replay.plan.signing import Signing, checked, signed, with_header
from replay.send.plan_stream import Planned
from replay.send.preparing import Functions, filled
from replay.send.wire import unframed

Step = Callable[[Planned, bytes, bytes], bytes]
"""Takes the arrival and its head and body as they stand; gives the head to send."""

_RENEW_AT = 0.8
_FETCH_TIMEOUT_S = 20
_RETRY_S = 5
_SOONEST_S = 0.5


class Finisher:
    """Puts the steps to each arrival. `close` ends the renewing of tokens."""

    def __init__(self, config: Config) -> None:
        self._token = Token(config.auth["token"]) if "token" in config.auth else None
        self._steps = list(_steps(config, self._token))

    def __bool__(self) -> bool:
        return bool(self._steps)

    def __call__(self, arrival: Planned) -> Planned:
        """The arrival as it is to be sent."""
        head, blank, body = arrival.wire.partition(b"\r\n\r\n")
        before = finished = head + blank
        content = unframed(before, body)
        for step in self._steps:
            finished = step(arrival, finished, content)
        if finished == before:
            return arrival
        return arrival._replace(wire=finished + body, exact=False, changed=(finished, body))

    def close(self) -> None:
        """Stop renewing."""
        if self._token is not None:
            self._token.close()


def _steps(config: Config, token: Token | None) -> list[Step]:
    auth = config.auth
    steps: list[Step] = []
    if "login" not in auth and ("value" in auth or token is not None):
        steps.append(_header_step(auth, token))
    if "call" in auth:
        steps.append(_call_step(Functions(config).find(auth["call"])))
    if "sign" in config.rewrite:
        signing = checked(config.rewrite["sign"])
        steps.append(_aws_step(signing) if signing.kind == "aws" else _hmac_step(signing))
    return steps


def _header_step(auth: Mapping[str, Any], token: Token | None) -> Step:
    name, everywhere = auth.get("header", "Authorization"), auth.get("on", "recorded") == "all"
    text = filled(auth.get("value", "Bearer {token}"), "[auth] value")

    def step(arrival: Planned, head: bytes, body: bytes) -> bytes:
        value = text.replace("{token}", token.value) if token is not None else text
        return with_header(head, name, value, only_there=not everywhere)

    return step


def _call_step(function: Callable[[str, dict[str, Any]], Mapping[str, str] | None]) -> Step:
    """A function of the user's gets the session's id and the request, and gives headers to set."""
    told: set[str] = set()

    def step(arrival: Planned, head: bytes, body: bytes) -> bytes:
        unpacker = msgpack.Unpacker()
        unpacker.feed(arrival.identity)
        _, _, session = (unpacker.unpack() for _ in range(3))
        try:
            for name, value in (function(session, _request(arrival, head, body)) or {}).items():
                head = with_header(head, str(name), str(value))
        except Exception as error:
            # A user's function may fail in any way; the run goes on, and says so once for each way.
            if repr(error) not in told:
                told.add(repr(error))
                print(f"replay: [auth] call failed for {arrival.endpoint}: {error!r}", file=sys.stderr)
        return head

    return step


def _request(arrival: Planned, head: bytes, body: bytes) -> dict[str, Any]:
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    return {
        "method": arrival.method,
        "target": start.split(" ")[1],
        "endpoint": arrival.endpoint,
        "headers": [tuple(line.split(": ", 1)) for line in lines],
        "body": body,
    }


def _hmac_step(signing: Signing) -> Step:
    ready = signing._replace(secret=filled(signing.secret, "[rewrite.sign] secret"))
    return lambda arrival, head, body: signed(ready, head, body, int(time.time()))


def _aws_step(signing: Signing) -> Step:
    """AWS Signature Version 4, by botocore, with the credentials that it finds."""
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.session import Session
    except ImportError:
        raise ConfigError(
            '[rewrite.sign] kind = "aws" needs botocore: pip install "staging-replay[aws]"'
        ) from None
    credentials = Session().get_credentials()
    if credentials is None:
        raise ConfigError(
            '[rewrite.sign] kind = "aws": there are no credentials; set AWS_ACCESS_KEY_ID and the like'
        )
    signer = SigV4Auth(credentials, signing.service, signing.region)

    def step(arrival: Planned, head: bytes, body: bytes) -> bytes:
        told = _request(arrival, head, body)
        headers = dict(told["headers"])
        host = next((value for name, value in headers.items() if name.lower() == "host"), "")
        request = AWSRequest(
            told["method"], f"https://{host}{told['target']}", data=body, headers={"Host": host}
        )
        signer.add_auth(request)
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token"):
            if name in request.headers:
                head = with_header(head, name, request.headers[name])
        return head

    return step


class Token:
    """A token from an OAuth 2 token endpoint (RFC 6749, 4.3 and 4.4), renewed before it expires."""

    def __init__(self, table: Mapping[str, str]) -> None:
        fields = {key: filled(value, f"[auth.token] {key}") for key, value in table.items()}
        self._url = fields.pop("url")
        self._form = urllib.parse.urlencode(
            {"grant_type": fields.pop("grant", "client_credentials"), **fields}
        )
        self.value, lasts = self._fetched()
        self._renewing = gevent.spawn(self._renew, lasts)

    def close(self) -> None:
        self._renewing.kill()

    def _renew(self, lasts: float) -> None:
        while True:
            gevent.sleep(max(_SOONEST_S, lasts * _RENEW_AT) if lasts else _RETRY_S)
            try:
                self.value, lasts = self._fetched()
            except TargetError as error:
                # The old one may still be good for the rest of its time.
                print(f"replay: {datetime.now(UTC):%H:%M:%S} {error}", file=sys.stderr)
                lasts = 0

    def _fetched(self) -> tuple[str, float]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        request = urllib.request.Request(self._url, self._form.encode(), headers)  # noqa: S310 - checked
        try:
            with urllib.request.urlopen(request, timeout=_FETCH_TIMEOUT_S) as answer:  # noqa: S310
                told = json.loads(answer.read())
            return str(told["access_token"]), float(told.get("expires_in") or 3600)
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            raise TargetError(f"[auth.token] {self._url} gave no token: {error}") from None
