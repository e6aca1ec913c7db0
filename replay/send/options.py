"""The replayer's own options on Locust's command line and in its web form, and back to `RunSettings`."""

from __future__ import annotations

import json
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from replay.config import RunSettings
from replay.errors import UsageError

SETTINGS = "REPLAY_SETTINGS"

_OPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("speed", {"type": float, "default": 1.0}, "replay this many times as fast as recorded"),
    ("rate", {"type": float}, "send this many requests per second instead of the recorded times"),
    ("poisson", {"action": "store_true"}, "with --rate: independent (Poisson) arrivals, not even ones"),
    ("ramp", {}, "rates over time, such as 0:100,60s:500"),
    ("concurrency", {"type": int}, "closed loop: as fast as this many connections get answers"),
    ("duration", {"type": float}, "stop after this many seconds of the schedule"),
    ("loop", {"type": int, "default": 1}, "passes over the capture; 0: until --duration"),
    (
        "include",
        {"action": "append", "default": None},
        "send only what matches: GET, /orders/*, 'POST /cart*'",
    ),
    ("exclude", {"action": "append", "default": None}, "leave out what matches"),
    (
        "writes",
        {"action": "append", "default": None},
        "send what this matches although it writes: 'POST /cart*', or all [default: GET, HEAD, OPTIONS and TRACE only]",
    ),
    ("deny", {"action": "append", "default": None}, "never send what this matches: '/payments*'"),
    ("production", {"action": "append", "default": None}, "host or network that must never be hit"),
    ("staging", {"action": "append", "default": None}, "host that may be hit at a public address"),
    ("allow-target", {"action": "append", "default": None}, "exact host to hit whatever speaks against it"),
    ("address", {}, "connect to this address instead of looking the target's name up"),
    ("ramp-up", {"type": float, "default": 5.0}, "seconds in which a --rate above 500/s grows to its height"),
    ("max-rate", {"type": float}, "never send more requests per second than this"),
    ("max-concurrency", {"type": int}, "never have more requests under way than this"),
    ("abort-errors", {"type": float, "default": 0.5}, "stop at this much more failures than usual (share)"),
    ("abort-p99", {"type": float, "default": 0.0}, "stop where 1 % of the answers take more seconds"),
    ("abort-failures", {"type": int, "default": 100}, "stop at this many failures in a row"),
    ("abort-refused", {"type": int, "default": 20}, "stop at this many refused connections in a row"),
    ("abort-window", {"type": float, "default": 1.0}, "seconds that a failure must last to stop a run"),
    ("abort-least", {"type": int, "default": 100}, "requests in the window before a share counts"),
    ("abort-groups", {"action": "append", "default": None}, "endpoints stopped alone: '/orders/*', or each"),
    ("abort-verdict", {"default": "fail"}, "what an abort makes the verdict: fail or invalid"),
    ("abort-beside", {}, "run whose failures are the usual ones, instead of the capture's"),
    ("key-file", {}, "key of the pseudonyms in the answers, where the capture was redacted"),
    ("host-header", {"default": "keep"}, "keep the recorded Host, or set the target's: keep or target"),
    ("tag", {}, "header that carries each request's exchange_id, for the target's logs"),
    (
        "spin",
        {"type": float, "default": 0.0015},
        "seconds before a deadline to spin for punctuality; 0: never",
    ),
    ("set-header", {"action": "append", "default": None}, "NAME:VALUE to set in every request"),
    ("remove-header", {"action": "append", "default": None}, "header to leave out of every request"),
    ("connections", {"default": "recorded"}, "recorded: one here for each there; pooled: any free one"),
    ("timeout", {"type": float, "default": 30.0}, "seconds to wait for an answer"),
    ("max-body", {"type": int, "default": 1 << 20}, "bytes of each answer's body to keep"),
    ("insecure", {"action": "store_true"}, "do not verify the target's certificate"),
    ("ca", {}, "file of CA certificates to trust for the target"),
    (
        "sessions",
        {"default": "live"},
        "live: requests wait for the answers they had waited for, and carry what this target handed out;"
        " ordered: they only wait; off: neither",
    ),
    ("rules", {}, "replay.toml whose [[bind]] tables apply"),
    ("seed", {"type": int, "default": 1}, "seed of the random arrivals"),
)


def add_options(parser: Any) -> None:
    """Extend Locust's parser; each option may also be given as an environment variable REPLAY_…"""
    group = parser.add_argument_group("replay", "Replaying a capture (see `replay run --help`)")
    group.add_argument("--capture", env_var="REPLAY_CAPTURE", help="directory of the capture to replay")
    group.add_argument("--out", env_var="REPLAY_OUT", help="new directory for the run's results")
    group.add_argument(
        "--target",
        action="append",
        metavar="NAME=URL",
        help="one of several builds to ask at once, each with a run of its own in OUT/NAME (instead of --host)",
    )
    parser.add_argument(
        "--progress-fd", type=int, include_in_web_ui=False, help="write progress as JSON there"
    )
    for name, how, what in _OPTIONS:
        variable = f"REPLAY_{name.upper().replace('-', '_')}"
        group.add_argument(f"--{name}", env_var=variable, help=what, **how)


def settings_from(options: Namespace) -> RunSettings:
    """The settings that the parsed options make; `UsageError` where they contradict each other.

    A replayer that `replay run` started has them in its environment.
    """
    if options.progress_fd is not None and (handed := os.environ.get(SETTINGS)):
        return settings_in(json.loads(handed))
    return RunSettings(
        speed=options.speed,
        rate=options.rate,
        poisson=options.poisson,
        ramp=options.ramp or None,
        concurrency=options.concurrency,
        duration=options.duration,
        loop=options.loop,
        include=tuple(options.include or ()),
        exclude=tuple(options.exclude or ()),
        host_header=options.host_header,
        tag=options.tag or None,
        spin=options.spin,
        set_headers=tuple(parse_header(text) for text in options.set_header or ()),
        remove_headers=tuple(options.remove_header or ()),
        connections=options.connections,
        timeout=options.timeout,
        max_body=options.max_body,
        insecure=options.insecure,
        ca=options.ca or None,
        seed=options.seed,
        writes=tuple(options.writes or ()),
        deny=tuple(options.deny or ()),
        production=tuple(options.production or ()),
        staging=tuple(options.staging or ()),
        allow_target=tuple(options.allow_target or ()),
        address=options.address or None,
        sessions=options.sessions,
        rules=options.rules or None,
        ramp_up=options.ramp_up,
        max_rate=options.max_rate,
        max_concurrency=options.max_concurrency,
        abort_errors=options.abort_errors,
        abort_p99=options.abort_p99,
        abort_failures=options.abort_failures,
        abort_refused=options.abort_refused,
        abort_window=options.abort_window,
        abort_least=options.abort_least,
        abort_groups=tuple(options.abort_groups or ()),
        abort_verdict=options.abort_verdict,
        abort_beside=options.abort_beside or None,
        key_file=options.key_file or None,
    )


def to_environment(settings: RunSettings) -> dict[str, str]:
    """What hands these settings to a replayer: its environment, which only its user may read.

    Not its command line: that everybody on the machine may, and a header that is set may be a secret.
    """
    return {SETTINGS: json.dumps(asdict(settings))}


def settings_in(data: dict[str, Any]) -> RunSettings:
    """Settings that went through JSON."""
    return RunSettings(**{name: _frozen(value) for name, value in data.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def parse_targets(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=URL` of several builds → URL by name; the name is that of the run's directory."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, url = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise UsageError(
                f"--target {text!r}: with several targets, write NAME=URL: --target candidate=http://…"
            )
        if name in found:
            raise UsageError(f"--target {name}=… is given twice: give each build a name of its own")
        found[name] = url
    return found


def parse_header(text: str) -> tuple[str, str]:
    """`NAME:VALUE` → its two parts, blanks around them removed."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--set-header {text!r}: write NAME:VALUE")
    return name.strip(), value.strip()
