"""Replay beside the clients people use: rate on one core, punctuality, memory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pyarrow.compute as pc

from replay.store.reader import Dataset
from tests.bench.machine import GENERATOR_CORE, Server, nginx, peak_mb, run, table
from tests.send.captures import steady

CONNECTIONS = 64
_LOCUST = (sys.executable, "-W", "ignore", "-m", "locust", "--headless", "--only-summary", "--json")


def rates(scratch: Path, seconds: int) -> str:
    """Requests per second on one core against one nginx, plain and over TLS; answers of 93 bytes."""
    capture = steady(scratch / "capture", 200_000, 0.05, CONNECTIONS, response_body=b"")
    rows = []
    with nginx(scratch / "nginx") as server:
        for name, url in (("HTTP", server.url), ("HTTPS", server.tls_url)):
            seen: dict[str, list[float]] = {}
            for turn in range(ROUNDS):
                # They take turns, so that a noisy minute of the machine hits all alike.
                for client, ask in _CLIENTS.items():
                    seen.setdefault(client, []).append(ask(capture, url, scratch / f"{name}-{turn}", seconds))
            ours = median(seen["replay"])
            rows += [
                [name, client, f"{median(rates):,.0f}", f"{ours / median(rates):.2f}"]
                for client, rates in seen.items()
            ]
    return table(("", "client, one core, 64 connections", "requests/s", "replay ÷ it"), rows)


ROUNDS = 3


def replayed(capture: Path, url: str, out: Path, seconds: int | None, sessions: str = "off") -> float:
    """Requests per second, lap after lap for so long; `None`: once through."""
    laps = () if seconds is None else ("--loop", "0", "--duration", f"{seconds}s")
    run([
        *(sys.executable, "-m", "replay", "run", str(capture), "--target", url, "--out", str(out), "--insecure"),
        *("--concurrency", str(CONNECTIONS), "--sessions", sessions, *laps),
    ])  # fmt: skip
    books = Dataset.open(out, "run").meta["books"]
    return float(books["answered"] / (books["wall_ns"] / 1e9))


def _locust(file: str, url: str, seconds: int) -> float:
    told = run([
        *_LOCUST, "-f", str(Path(__file__).with_name(file)), "--host", url,
        *("-u", str(CONNECTIONS), "-r", str(CONNECTIONS), "-t", f"{seconds + 3}s"),
    ])  # fmt: skip
    entry = json.loads(told[told.index("[") :])[0]
    # Whole seconds in the middle: starting and stopping users is not what is measured.
    per_second = [
        count for _, count in sorted(entry["num_reqs_per_sec"].items(), key=lambda item: int(item[0]))
    ]
    return float(median(per_second[2:-1] or per_second))


def _wrk(url: str, seconds: int) -> float:
    told = run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"{url}/products/41"])
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None, told
    return float(found[1])


_CLIENTS: dict[str, Callable[[Path, str, Path, int], float]] = {
    "replay": replayed,
    "replay, sessions kept alive": lambda capture, url, out, seconds: replayed(
        capture, url, out.with_name(f"{out.name}-live"), seconds, "live"
    ),
    "FastHttpUser": lambda capture, url, out, seconds: _locust("locust_fast.py", url, seconds),
    "HttpUser": lambda capture, url, out, seconds: _locust("locust_requests.py", url, seconds),
    "wrk": lambda capture, url, out, seconds: _wrk(url, seconds),
}


def punctuality(scratch: Path, seconds: int) -> str:
    """Lag of Poisson arrivals, by the generator's clock and by the server's, and what was lost."""
    rows = []
    for rate in (5_000, 20_000):
        capture = steady(scratch / f"capture-{rate}", rate * seconds, 0.05, 256, response_body=b"")
        out = scratch / f"run-{rate}"
        with nginx(scratch / f"nginx-{rate}", log=True) as server:
            _poisson(capture, server.url, out, rate)
        # nginx has written all of its log once it is gone.
        rows.append(_on_time(out, server, rate))
    head = (
        *("Poisson arrivals", "sent", "lag p50 ms", "p99 ms", "max ms"),
        *("server saw, p99 ms late", "lost", "connections"),
    )
    return table(head, rows)


def _poisson(capture: Path, url: str, out: Path, rate: int) -> None:
    run([
        *(sys.executable, "-m", "replay", "run", str(capture), "--target", url, "--out", str(out)),
        *("--rate", str(rate), "--poisson", "--ramp-up", "0"),
    ])  # fmt: skip


def _on_time(out: Path, server: Server, rate: int) -> list[str]:
    dataset = Dataset.open(out, "run")
    books = dataset.meta["books"]
    due: dict[int, int] = {}
    lags: list[int] = []
    for batch in dataset.batches(("exchange_id", "due_ns", "sent_ns", "held_ns")):
        lags += pc.subtract(pc.subtract(batch["sent_ns"], batch["due_ns"]), batch["held_ns"]).to_pylist()
        for name, at in zip(batch["exchange_id"].to_pylist(), batch["due_ns"].to_pylist(), strict=True):
            due[int(name[-12:], 16)] = at
    # The server's clock tells milliseconds, cut off: half of one is lost on average.
    seen = sorted(
        at * 1e3 - (books["started_at_ns"] + due[int(path[1:])]) / 1e6 for at, path in server.arrivals()
    )
    lags.sort()
    return [
        f"{rate:,}/s", f"{books['sent']:,}",
        *(f"{lags[min(len(lags) - 1, int(len(lags) * q))] / 1e6:.2f}" for q in (0.5, 0.99, 1.0)),
        f"{seen[int(len(seen) * 0.99)]:.1f}", f"{books['sent'] - len(seen)}", "256",
    ]  # fmt: skip


def memory(scratch: Path) -> str:
    """The largest process of a run, for a capture and for one ten times as long."""
    rows = []
    with nginx(scratch / "nginx") as server:
        for count in (40_000, 400_000):
            capture = steady(scratch / f"capture-{count}", count, 0.1, CONNECTIONS, response_body=b"x" * 500)
            peak = peak_mb(
                [
                    *(sys.executable, "-m", "replay", "run", str(capture), "--target", server.url),
                    *("--out", str(scratch / f"run-{count}")),
                ],
                GENERATOR_CORE,
            )
            rows.append([f"{count:,} exchanges at 10,000/s", f"{peak:.0f} MB"])
    return table(("replay", "largest process of the run"), rows)
