"""`make bench`: what the product is measured by, side by side in one run, as Markdown."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import capturing, cluster, comparing, replaying, sessions
from tests.bench.machine import described, many_files


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*_BENCHES, []], help="which; all by default")
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement (default 10)")
    arguments = parser.parse_args()
    many_files()
    print(f"{described()}\n", flush=True)
    for name, (title, bench) in _BENCHES.items():
        if not arguments.only or name in arguments.only:
            with tempfile.TemporaryDirectory() as scratch:
                print(f"### {title}\n\n{bench(Path(scratch), arguments.seconds)}\n", flush=True)


_BENCHES: dict[str, tuple[str, Callable[[Path, int], str]]] = {
    "rate": ("Replay: rate", replaying.rates),
    "sessions": ("Replay: sessions", sessions.rates),
    "workers": ("Replay: workers", cluster.rates),
    "lag": ("Replay: punctuality", replaying.punctuality),
    "memory": ("Replay: memory", lambda scratch, _: replaying.memory(scratch)),
    "capture": ("Capture: cost", capturing.cost),
    "diff": ("Diff: speed", lambda _, seconds: comparing.speed(2_000 * seconds)),
}

if __name__ == "__main__":
    main()
