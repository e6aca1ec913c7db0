"""The right target only: a table of targets, and whole commands that must not send a byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.cli import main
from replay.config import RunSettings, parse_target
from replay.errors import TargetError
from replay.send.guard import Place, admit, places_of, refusal
from replay.store.writer import DatasetWriter
from replay.verbs.run import replay_run
from tests.rows import exchange
from tests.send import captures
from tests.send.servers import RecordingServer

PRODUCTION = frozenset({Place("shop.example", 443), Place("10.1.2.3", 80), Place("127.0.0.1", 8080)})
PUBLIC, PRIVATE, LOOPBACK = "93.184.216.34", "10.9.9.9", "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "addresses", "settings", "reason"),
    [
        ("http://127.0.0.1:9000", (LOOPBACK,), {}, None),
        ("http://localhost:9000", (LOOPBACK, "::1"), {}, None),
        ("http://staging.local", (PRIVATE,), {}, None),
        # Captured hosts: by name on any port, by address, on loopback by address and port.
        ("https://shop.example", (PRIVATE,), {}, "recorded at shop.example:443"),
        ("https://SHOP.example.", (PRIVATE,), {}, "recorded at shop.example:443"),
        ("http://shop.example:8443", (PRIVATE,), {}, "recorded at shop.example:443"),
        ("http://10.1.2.3:9999", ("10.1.2.3",), {}, "recorded at 10.1.2.3:80"),
        ("http://other.local", ("10.1.2.3",), {}, "as 10.1.2.3 is"),
        ("http://other.local", ("::ffff:10.1.2.3",), {}, "as 10.1.2.3 is"),
        ("http://other.local", (PRIVATE, "10.1.2.3"), {}, "as 10.1.2.3 is"),
        ("http://127.0.0.1:8080", (LOOPBACK,), {}, "recorded at 127.0.0.1:8080"),
        ("http://localhost:8080", (LOOPBACK,), {}, "as 127.0.0.1 is"),
        # Listed as production: host, pattern, address, network, the addresses of a listed name.
        ("http://api.corp", (PRIVATE,), {"production": ("api.corp",)}, "api.corp is listed"),
        ("http://a.api.corp", (PRIVATE,), {"production": ("*.API.corp",)}, "is listed"),
        ("http://x.corp", (PRIVATE,), {"production": ("10.9.0.0/16",)}, "10.9.0.0/16 is listed"),
        ("http://x.corp:81", (LOOPBACK,), {"production": ("localhost",)}, "localhost is listed"),
        ("http://x.corp", (PRIVATE,), {"production": ("other.test",)}, None),
        # Public addresses need to be named.
        ("http://staging.corp", (PUBLIC,), {}, "is a public address"),
        ("http://staging.corp", (PRIVATE, PUBLIC), {}, "is a public address"),
        ("http://staging.corp", (PUBLIC,), {"staging": ("staging.corp",)}, None),
        ("http://staging.corp", (PUBLIC,), {"staging": ("https://staging.corp",)}, None),
        ("http://staging.corp:81", (PUBLIC,), {"staging": ("staging.corp:80",)}, "is a public address"),
        ("http://evil.staging.corp", (PUBLIC,), {"staging": ("staging.corp",)}, "is a public address"),
        # Naming a host as staging does not make production anything else.
        ("https://shop.example", (PUBLIC,), {"staging": ("shop.example",)}, "recorded at shop.example"),
    ],
)
def test_targets(
    url: str, addresses: tuple[str, ...], settings: dict[str, tuple[str, ...]], reason: str | None
) -> None:
    told = refusal(parse_target(url), addresses, PRODUCTION, RunSettings(**settings))
    assert told is None if reason is None else reason in str(told)


def test_only_the_exact_host_is_allowed(tmp_path: Path) -> None:
    capture = captures.write(tmp_path / "capture", [exchange(host="10.1.2.3", scheme="http")])
    target = parse_target("http://10.1.2.3")
    with pytest.raises(
        TargetError, match=r"refused: the capture was recorded at 10\.1\.2\.3:80; .*--allow-target 10"
    ):
        admit(target, capture, RunSettings())
    with pytest.raises(TargetError):
        admit(target, capture, RunSettings(allow_target=("10.1.2.4",)))
    assert admit(target, capture, RunSettings(allow_target=("10.1.2.3",))).address == "10.1.2.3"


def test_places_are_the_hosts_of_the_requests_and_the_service_behind_the_proxy(tmp_path: Path) -> None:
    modes = ["reverse:https://Origin.example:8443", "reverse:http://localhost:3000", "regular@8080"]
    source = {"tool": "mitmproxy", "mode": modes}
    writer = DatasetWriter(tmp_path / "capture", "capture", source=source, settings={})
    hosts = ("Shop.example", "shop.example:81", "[2001:db8::1]:82", "not a host]", "")
    for number, host in enumerate(hosts):
        writer.add(exchange(number, host=host, scheme="https"))
    writer.close({})
    assert places_of(tmp_path / "capture") == {
        Place("shop.example", 443),
        Place("shop.example", 81),
        Place("2001:db8::1", 82),
        Place("origin.example", 8443),
    }


def test_production_gets_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RecordingServer() as server:
        host = f"127.0.0.1:{server.port}"
        capture = captures.write(tmp_path / "capture", [exchange(host=host, endpoint="GET /{id}")])
        for url in (server.url, f"http://localhost:{server.port}"):
            arguments = ["replay", "run", str(capture), "--target", url, "--out", str(tmp_path / "run")]
            monkeypatch.setattr("sys.argv", arguments)
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 2
            assert "is refused" in capsys.readouterr().err
        assert not server.connections
        assert not server.requests
        assert not (tmp_path / "run").exists()
        replay_run(capture, server.url, tmp_path / "run", RunSettings(allow_target=("127.0.0.1",)))
        assert len(server.requests) == 1


def test_a_redirect_leads_nowhere(tmp_path: Path) -> None:
    with RecordingServer() as elsewhere:
        answer = b"HTTP/1.1 302 Found\r\nLocation: %b/\r\nContent-Length: 0\r\n\r\n" % elsewhere.url.encode()

        def redirect(connection: object, request: bytes) -> bool:
            connection.sendall(answer)  # type: ignore[attr-defined]
            return True

        with RecordingServer(redirect) as server:
            summary = replay_run(
                captures.steady(tmp_path / "capture", 5, 1), server.url, tmp_path / "run", RunSettings()
            )
        assert summary.books["statuses"] == {"302": 5}
        assert not elsewhere.requests


def test_writes_are_left_out_and_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ("GET", "POST", "GET", "DELETE", "GET", "POST")
    capture = captures.write(
        tmp_path / "capture",
        (
            exchange(number, method=method, endpoint=f"{method} /{'pay' if number == 4 else 'x'}")
            for number, method in enumerate(methods)
        ),
    )
    cases = {
        (): ({"writes": 3}, 3, "3 writes were not sent: --writes PATTERN (or all) sends them"),
        ("--writes", "POST"): ({"writes": 1}, 5, "1 writes were not sent"),
        ("--writes", "all", "--deny", "/pay"): ({"denied": 1}, 5, "1 denied by --deny"),
        ("--writes", "all", "--deny", "GET /products*"): ({"denied": 3}, 3, "3 denied by --deny"),
        ("--writes", "all"): ({}, 6, "run"),
    }
    for number, (options, (left_out, sent, first)) in enumerate(cases.items()):
        with RecordingServer() as server:
            out = tmp_path / f"run-{number}"
            monkeypatch.setattr(
                "sys.argv",
                ["replay", "run", str(capture), "--target", server.url, "--out", str(out), *options],
            )
            with pytest.raises(SystemExit):
                main()
            assert len(server.requests) == sent
        from replay.store import metadata

        books = metadata.load(out, "run")["books"]
        assert (books["left_out"], books["sent"], books["planned"]) == (left_out, sent, sent)
        assert capsys.readouterr().out.startswith(first)
