"""Builds: started with what they need, awaited, and ended with everything they started."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from replay.errors import TargetError
from replay.verbs.builds import running
from replay.verbs.gate_settings import BuildSettings

SERVE = (sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1")
LOCAL = "http://127.0.0.1:{port}"


def build(*command: str, url: str = LOCAL, **keys: object) -> BuildSettings:
    given = {"timeout": 20.0, "grace": 5.0, "ready": "/", **keys}
    return BuildSettings("candidate", url, command or SERVE, **given)  # type: ignore[arg-type]


def shell(script: str, **keys: object) -> BuildSettings:
    return build("/bin/sh", "-c", script, **keys)


def test_a_build_is_there_while_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("there")
    with running(build(directory=tmp_path), "candidate", tmp_path / "log") as up:
        connection = http.client.HTTPConnection(up.url.removeprefix("http://"))
        connection.request("GET", "/hello")
        assert connection.getresponse().read() == b"there"
        connection.close()
        assert up.gone() == ""
        assert up.process is not None
        pid = up.process.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
    assert '"GET /hello HTTP/1.1" 200' in (tmp_path / "log").read_text()


def test_command_reset_and_environment_know_the_port_and_the_role(tmp_path: Path) -> None:
    settings = shell(
        'echo "$REPLAY_ROLE $REPLAY_PORT $REPLAY_URL $WHERE" > told; exec "$PYTHON" -m http.server {port}',
        env={"WHERE": "at {port}", "PYTHON": sys.executable},
        reset=("/bin/sh", "-c", "echo reset for $REPLAY_ROLE at {port} > reset"),
        directory=tmp_path,
    )
    with running(settings, "control", tmp_path / "log") as up:
        port = up.url.rpartition(":")[2]
        assert (tmp_path / "told").read_text() == f"control {port} {up.url} at {port}\n"
        assert (tmp_path / "reset").read_text() == f"reset for control at {port}\n"


def test_everything_a_build_started_ends_with_it(tmp_path: Path) -> None:
    # The shell ends at once when asked to; its child does not listen.
    stubborn = 'sh -c \'trap "" TERM; echo $$ > child; sleep 1000\' & exec "$PYTHON" -m http.server {port}'
    settings = shell(stubborn, env={"PYTHON": sys.executable}, directory=tmp_path, grace=0.3)
    with running(settings, "candidate", tmp_path / "log") as up:
        child = int((tmp_path / "child").read_text())
        os.kill(child, 0)
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert up.gone().startswith("signal 15")


FAILURES = {
    "no such program": (build("./no-such"), r"\[candidate\] command: cannot start \./no-such in .*: No such file"),
    "ends at once": (shell("echo bad config; exit 3"),
                     r"the candidate build did not start: echo bad config; exit 3 ended with exit 3; the end of"
                     r" .*log:\n  bad config$"),
    "goes to the background": (shell("true"), r"ended with exit 0 \(a build has to stay in the foreground\); it wrote"),
    "is killed": (shell("kill -9 $$"), "ended with signal 9"),
    "never ready": (shell("echo warming up; sleep 1000", timeout=0.3),
                    r"was not ready within 0.3 s: /: Connection refused; check \[candidate\], or raise its"
                    r" timeout; the end of .*\n  warming up$"),
    "ready elsewhere": (build(ready="/no/such", timeout=2), r"within 2 s: /no/such: status 404"),
    "reset fails": (build(reset=("/bin/sh", "-c", "echo no backup; exit 1")),
                    r"\[candidate\] reset \(echo no backup; exit 1\) failed before the candidate run: exit 1;"
                    r" the end of .*\n  no backup$"),
    "reset hangs": (build(reset=("sleep", "1000"), timeout=0.3),
                    r"\[candidate\] reset \(sleep 1000\) did not end within 0.3 s"),
    "no reset": (build(reset=("./no-such",)), r"\[candidate\] reset: cannot start ./no-such"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), FAILURES.values(), ids=FAILURES)
def test_what_is_wrong_is_said(tmp_path: Path, settings: BuildSettings, message: str) -> None:
    with pytest.raises(TargetError, match=message), running(settings, "candidate", tmp_path / "log"):
        pytest.fail("it is not up")


def test_a_log_cannot_steer_the_terminal(tmp_path: Path) -> None:
    script = "printf '\\033[31mred\\a\\n'; exit 1"
    with pytest.raises(TargetError) as raised, running(shell(script), "candidate", tmp_path / "log"):
        pass
    assert "\x1b" not in str(raised.value).partition("the end of")[2]
    assert "[31mred" in str(raised.value)


def test_another_server_is_not_taken_for_the_build(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(TargetError, match=f"something listens at {url} already"),
            running(build(url=url), "candidate", tmp_path / "log"),
        ):
            pass


class Fine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def https(ca: trustme.CA) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Fine)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_build_behind_tls_is_trusted_as_the_replay_trusts_it(tmp_path: Path) -> None:
    ca = trustme.CA()
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    with https(ca) as url:
        reached = BuildSettings("candidate", url, ready=f"{url}/health?full=1", timeout=0.3)
        with running(reached, "candidate", tmp_path / "log", trusting) as up:
            assert (up.url, up.process) == (url, None)
        with (
            pytest.raises(TargetError, match=r"was not ready .*certificate"),
            running(reached, "candidate", tmp_path / "log", ssl.create_default_context()),
        ):
            pass
