"""`make fuzz`: each target under atheris, which steers by the branches that an input reaches.

    python -m tests.fuzz TARGET --seconds 300 --corpus DIRECTORY

An input that breaks a promise, takes longer than ten seconds or more than two gigabytes ends the run with a
trace, and is kept beside the corpus.
"""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["replay"]):
    from replay.errors import ReplayError
    from tests.fuzz.targets import TARGETS


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-out"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    target = TARGETS[given.target]
    corpus = given.corpus / given.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = given.corpus / f"{given.target}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) < 64))

    def run(data: bytes) -> None:
        with suppress(ReplayError):
            target.run(data)

    options = [f"-max_total_time={given.seconds}", f"-dict={words}", f"-artifact_prefix={corpus}-"]
    bounds = ["-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *bounds, str(corpus)], run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
