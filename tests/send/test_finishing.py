"""Credentials and signatures made at the instant of sending, as a server gets them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from replay.config import load
from replay.errors import ReplayError
from replay.model import Result
from replay.store.reader import Dataset
from replay.verbs.run import replay_run
from tests.rows import exchange
from tests.send.captures import write
from tests.send.servers import RecordingServer, answer_ok

BODY = b'{"a": 1}'
SENT = (("Host", "shop.test"), ("Authorization", "Bearer recorded"), ("Content-Length", "8"))


def replayed(
    tmp_path: Path, server: RecordingServer, config: str, headers: tuple[tuple[str, str], ...] = SENT
) -> bytes:
    """One recorded POST, replayed under a configuration: the request as it came."""
    (tmp_path / "replay.toml").write_text(config)
    row = exchange(0, method="POST", endpoint="POST /pay", target="/pay?x=1", request_headers=headers,
                   request_body=BODY, request_size=len(BODY))  # fmt: skip
    settings = load(tmp_path / "replay.toml").run_settings(writes=("*",))
    replay_run(write(tmp_path / "capture", [row]), server.url, tmp_path / "run", settings)
    (found,) = [request for request in server.requests if request.startswith(b"POST /pay")]
    (result,) = Dataset.open(tmp_path / "run", "run").rows()
    assert (result.sent_head or b"") + (result.sent_body or b"") == found or found.endswith(BODY)
    return found


def header(request: bytes, name: str) -> str | None:
    found = re.search(rb"(?mi)^" + name.encode() + rb": ([^\r]*)\r$", request)
    return None if found is None else found[1].decode()


def test_a_credential_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGING_TOKEN", "t0ken")
    with RecordingServer() as server:
        request = replayed(tmp_path, server, '[auth]\nvalue = "Bearer {env.STAGING_TOKEN}"\n')
    assert header(request, "Authorization") == "Bearer t0ken"


@pytest.mark.parametrize(("on", "value"), [("recorded", None), ("all", "key")])
def test_it_goes_where_there_was_one_or_everywhere(tmp_path: Path, on: str, value: str | None) -> None:
    with RecordingServer() as server:
        config = f'[auth]\nheader = "X-Key"\nvalue = "key"\non = "{on}"\n'
        assert header(replayed(tmp_path, server, config), "X-Key") == value


def test_a_token_endpoint_is_asked_once(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if not request.startswith(b"POST /token"):
            return answer_ok(connection, request)
        text = json.dumps({"access_token": "fresh", "expires_in": 600}).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        return False

    with RecordingServer(behave) as server:
        config = f'[auth.token]\nurl = "{server.url}/token"\nclient_id = "me"\nclient_secret = "s"\n'
        assert header(replayed(tmp_path, server, config), "Authorization") == "Bearer fresh"
        (asked,) = [request for request in server.requests if request.startswith(b"POST /token")]
    form = parse_qs(asked.partition(b"\r\n\r\n")[2].decode())
    assert form == {"grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": ["s"]}


def test_a_function_gets_the_session_and_the_request(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def sign(session, request):\n"
        "    return {'X-Mine': f\"{session} {request['method']} {request['target']} {len(request['body'])}\"}\n"
    )
    with RecordingServer() as server:
        request = replayed(tmp_path, server, '[auth]\ncall = "mine:sign"\n')
    assert header(request, "X-Mine") == "s0 POST /pay?x=1 8"


def test_an_hmac_counts_from_the_instant_of_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k")
    config = (
        '[rewrite.sign]\nkind = "hmac"\nheader = "X-Sig"\nsecret = "{env.KEY}"\n'
        'over = ["timestamp", "body"]\nseparator = "."\ntimestamp_header = "X-Time"\n'
    )
    with RecordingServer() as server:
        request = replayed(tmp_path, server, config)
    stamp = header(request, "X-Time")
    assert stamp is not None
    assert abs(time.time() - int(stamp)) < 60
    assert header(request, "X-Sig") == hmac.digest(b"k", f"{stamp}.".encode() + BODY, hashlib.sha256).hex()


def test_aws_signatures_are_botocores_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    config = '[rewrite.sign]\nkind = "aws"\nservice = "execute-api"\nregion = "eu-west-1"\n'
    with RecordingServer() as server:
        request = replayed(tmp_path, server, config)
    told = AWSRequest("POST", "https://shop.test/pay?x=1", data=BODY, headers={"Host": "shop.test"})
    told.headers["X-Amz-Date"] = told.context["timestamp"] = header(request, "X-Amz-Date")
    signer = SigV4Auth(Credentials("AKID", "secret"), "execute-api", "eu-west-1")
    signature = signer.signature(signer.string_to_sign(told, signer.canonical_request(told)), told)
    authorization = header(request, "Authorization") or ""
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert authorization.endswith(f"Signature={signature}")


LOGIN = """
[auth]
users = "users.csv"
value = "Token {login}"

[auth.login]
target = "/login"
body = '{"user": "{user.name}", "password": "{user.password}"}'
take = "$.data.key"
"""


def sessions(
    tmp_path: Path, server: RecordingServer, config: str = LOGIN, users: str = "ann,a1\nbob,b2\n"
) -> list[Result]:
    """Three sessions of three requests and one of a single request, after each other at once."""
    (tmp_path / "users.csv").write_text(f"name,password\n{users}")
    (tmp_path / "replay.toml").write_text(config)
    rows = [
        exchange(number, session_id=f"s{number % 3 if number < 9 else 9}", connection_id=f"c{number}",
                 request_headers=(("Host", "h"), ("Authorization", "Token recorded"), ("Cookie", "sid=recorded")))
        for number in range(10)
    ]  # fmt: skip
    settings = load(tmp_path / "replay.toml").run_settings()
    replay_run(write(tmp_path / "capture", rows), server.url, tmp_path / "run", settings)
    return list(Dataset.open(tmp_path / "run", "run").rows())


def test_each_session_logs_in_first_as_a_test_user_of_its_own(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if not request.startswith(b"POST /login"):
            return answer_ok(connection, request)
        time.sleep(0.2)
        user = json.loads(request.partition(b"\r\n\r\n")[2])
        text = json.dumps({"data": {"key": f"{user['user']}-{user['password']}"}}).encode()
        cookie = f"Set-Cookie: sid={user['user']}"
        lines = ["HTTP/1.1 200 OK", cookie, f"Content-Length: {len(text)}", "Content-Type: application/json"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + text)
        return False

    with RecordingServer(behave) as server:
        found = sessions(tmp_path, server)
        logins = [request for request in server.requests if request.startswith(b"POST /login")]
        others = [request for request in server.requests if not request.startswith(b"POST /login")]
    assert (len(logins), len(others), len(found)) == (4, 10, 10)
    for request in others:
        name = header(request, "Cookie")
        assert name in ("sid=ann", "sid=bob")
        assert (
            header(request, "Authorization") == {"sid=ann": "Token ann-a1", "sid=bob": "Token bob-b2"}[name]
        )
    assert all(row.status == 200 and not row.exact and row.unbound is None for row in found)
    # Waiting for the login is waiting for the target, not the generator's lag.
    assert all(row.held_ns > 150_000_000 for row in found[:4])


def test_a_login_that_fails_is_said_with_every_request_it_was_for(tmp_path: Path) -> None:
    def behave(connection: socket.socket, request: bytes) -> bool:
        if request.startswith(b"POST /login"):
            connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            return False
        return answer_ok(connection, request)

    with RecordingServer(behave) as server:
        found = sessions(tmp_path, server)
    assert {row.unbound for row in found} == {"login answered 403"}
    assert all(row.status == 200 and row.exact for row in found)


@pytest.mark.parametrize(
    ("body", "kind", "read"),
    [
        ('{"user": "{user.name}", "password": "{user.password}"}', "application/json", json.loads),
        (
            "user={user.name}&password={user.password}",
            "application/x-www-form-urlencoded",
            lambda body: {name: values[0] for name, values in parse_qs(body.decode()).items()},
        ),
    ],
)
def test_what_is_filled_into_a_login_is_written_as_its_body_is(
    tmp_path: Path, body: str, kind: str, read: Callable[[bytes], dict[str, str]]
) -> None:
    config = f"[auth]\nusers = \"users.csv\"\n[auth.login]\ntarget = '/login/{{user.name}}?x=%41'\nbody = '{body}'\n"
    with RecordingServer() as server:
        sessions(tmp_path, server, config, users='José,"a""b\\1&c+d%41"\n')
        login = next(request for request in server.requests if request.startswith(b"POST /login"))
    assert login.startswith(b"POST /login/Jos%C3%A9?x=%41 HTTP/1.1")
    assert header(login, "Content-Type") == kind
    assert read(login.partition(b"\r\n\r\n")[2]) == {"user": "José", "password": 'a"b\\1&c+d%41'}


def test_a_login_that_breaks_in_any_way_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = LOGIN.replace("/login", "/login\\u0000")
    with RecordingServer() as server:
        found = sessions(tmp_path, server, broken)
    assert {row.status for row in found} == {200}
    assert all((row.unbound or "").startswith("login") for row in found)


def test_a_signature_is_over_the_body_however_it_is_framed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "k")
    config = '[rewrite.sign]\nkind = "hmac"\nheader = "X-Sig"\nsecret = "{env.KEY}"\nover = ["body"]\n'
    headers = (("Host", "shop.test"), ("Transfer-Encoding", "chunked"))
    with RecordingServer() as server:
        request = replayed(tmp_path, server, config, headers)
    assert request.endswith(b"\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n")
    assert header(request, "X-Sig") == hmac.digest(b"k", BODY, hashlib.sha256).hex()


WRONG = [
    ('[auth]\nvalue = "Bearer {token}"\n', r"speaks of \{token\}, and there is no \[auth.token\]"),
    ('[auth]\nvalue = "Bearer {login}"\n', r"speaks of \{login\}, and there is no \[auth.login\]"),
    ('[auth]\nvalue = "{user.name}"\n', "columns of users go into"),
    ('[auth.login]\ntarget = "/in"\n[auth.token]\nurl = "http://a"\n', "a token and a login"),
    ('[auth.login]\ntarget = "/in"\nbody = "{user.name}"\n', r"asks for \{user.name\} .*there is none"),
    ('[auth.login]\ntarget = "/in"\n[run]\nsessions = "off"\n', r"\[auth.login\] is for sessions"),
    ('[auth]\nvalue = "{env.NOT_SET_ANYWHERE}"\n', "no variable NOT_SET_ANYWHERE"),
    ('[auth.token]\nurl = "http://127.0.0.1:9/token"\n', "gave no token"),
]


@pytest.mark.parametrize(("config", "says"), WRONG)
def test_what_cannot_be_had_is_said_before_anything_is_sent(tmp_path: Path, config: str, says: str) -> None:
    with RecordingServer() as server, pytest.raises(ReplayError, match=says):
        replayed(tmp_path, server, config)
    assert server.requests == []
    assert not (tmp_path / "run").exists()
