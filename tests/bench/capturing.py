"""What capture costs a proxy: requests per second through bare mitmdump, with `-w`, and with the recorder."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from statistics import median

from tests.bench.machine import (
    GENERATOR_CORE,
    SERVER_CORE,
    Server,
    child,
    free_port,
    move_children,
    nginx,
    run,
    table,
    wait_for,
)

_BIN = Path(sys.executable).parent
_ROUNDS = 3


def cost(scratch: Path, seconds: int) -> str:
    """Medians of rounds that take turns, so that a noisy minute hits all alike."""
    with nginx(scratch / "nginx") as server:
        rates: dict[str, list[float]] = {}
        for turn in range(_ROUNDS):
            for name, arguments in _proxies(server, scratch / str(turn)).items():
                port = free_port()
                with child([*arguments, *_listening(name, port)], GENERATOR_CORE) as process:
                    wait_for(port, 30)
                    if name == "replay capture":
                        move_children(process.pid, "replay.capture.recorder", SERVER_CORE)
                    rates.setdefault(name, []).append(through(port, seconds))
    middle = {name: median(values) for name, values in rates.items()}
    bare = middle["mitmdump"]
    rows = [[name, f"{rate:,.0f}", f"{1 - rate / bare:+.1%}"] for name, rate in middle.items()]
    return table(("proxy on one core, 8 connections", "requests/s", "cost"), rows)


def _proxies(server: Server, scratch: Path) -> dict[str, list[str]]:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    reverse = ("--mode", f"reverse:{server.url}")
    capture = [
        *(str(_BIN / "replay"), "capture", "--upstream", server.url, "--out", str(scratch / "capture"))
    ]
    return {
        "mitmdump": [str(_BIN / "mitmdump"), "-q", *reverse],
        "mitmdump -w": [str(_BIN / "mitmdump"), "-q", "-w", str(scratch / "flows"), *reverse],
        "replay capture": [*capture, "--key-file", str(scratch / "key")],
    }


def _listening(name: str, port: int) -> list[str]:
    if name == "replay capture":
        return ["--listen", f"127.0.0.1:{port}"]
    return ["--listen-host", "127.0.0.1", "--listen-port", str(port)]


def through(port: int, seconds: int) -> float:
    url = f"http://127.0.0.1:{port}/products/41"
    headers = (
        "-H",
        "Authorization: Bearer 8f14e45fceea167a5a36dedd4bea2543",
        "-H",
        "Cookie: session=c9f0f895fb98ab91",
    )
    run(["wrk", "-t1", "-c8", "-d2s", *headers, url], SERVER_CORE)
    told = run(["wrk", "-t1", "-c8", f"-d{seconds}s", *headers, url], SERVER_CORE)
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None, told
    return float(found[1])
