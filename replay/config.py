"""Settings: what the command line and replay.toml say, checked once and frozen."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from replay import acceptances
from replay.diff.answers import CompareSettings
from replay.diff.headers import FRAMING
from replay.diff.latency import LatencySettings
from replay.diff.noise import JudgeSettings
from replay.diff.rules import compile_rules
from replay.diff.settings import DiffSettings
from replay.errors import ConfigError, UsageError
from replay.plan.correlate import Wish, wishes
from replay.plan.rewrite import compile_rewrites
from replay.plan.signing import checked
from replay.plan.times import times_of

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header (RFC 9110, 5.6.2)."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a capture is driven against a target. Durations are in seconds, sizes in bytes.

    Pacing: the recorded timestamps times `speed`; or `rate` (requests per second, evenly or `poisson`); or
    `ramp` (see `replay.plan.pacing.parse_ramp`); or `concurrency`, the closed loop: as fast as N connections
    get answers. `loop` is the number of passes, 0 for as many as fit `duration`. `sessions`: requests wait for
    the answers they had waited for (`ordered`), and also carry what the target handed out (`live`), or neither
    (`off`). `rules` is the replay.toml whose tables about sessions apply.

    What may be sent: safe methods, and what `writes` matches (see `replay.plan.dispatch.Selection`); never what
    `deny` matches. Where to (see `replay.send.guard`): `production` lists hosts and networks that are never
    hit, `staging` hosts that may be although their addresses are public, `allow_target` hosts that may be
    whatever speaks against it. `address` is the target's, pinned.

    How much: `ramp_up` is the time in which a `rate` above 500/s grows to its height, `max_rate` and
    `max_concurrency` are never exceeded. When to stop: the `abort_` settings are those of
    `replay.plan.breaker.AbortRules` with times in seconds; `abort_verdict` is what a trip makes the verdict,
    `abort_beside` a run whose failures are the usual ones, instead of the capture's.

    `${NAME}` in the value of a header of `set_headers` stands for a variable of the environment. `key_file` holds
    the key of the pseudonyms that stand for secrets in the answers (see `replay.keys`).
    """

    speed: float = 1.0
    rate: float | None = None
    poisson: bool = False
    ramp: str | None = None
    concurrency: int | None = None
    duration: float | None = None
    loop: int = 1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    host_header: str = "keep"
    tag: str | None = None
    """A header to carry each arrival's exchange_id, for the target's own logs."""
    spin: float = 0.0015
    """Seconds before a deadline that are spent spinning, because timers are coarser than that; 0: never."""
    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    connections: str = "recorded"
    timeout: float = 30.0
    max_body: int = 1 << 20
    insecure: bool = False
    ca: str | None = None
    workers: int = 1
    seed: int = 1
    writes: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    production: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()
    allow_target: tuple[str, ...] = ()
    address: str | None = None
    sessions: str = "live"
    rules: str | None = None
    ramp_up: float = 5.0
    max_rate: float | None = None
    max_concurrency: int | None = None
    abort_errors: float = 0.5
    abort_p99: float = 0.0
    abort_failures: int = 100
    abort_refused: int = 20
    abort_window: float = 1.0
    abort_least: int = 100
    abort_groups: tuple[str, ...] = ()
    abort_verdict: str = "fail"
    abort_beside: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.rate, self.ramp, self.concurrency)) > 1:
            raise UsageError("--rate, --ramp and --concurrency exclude each other: choose one")
        if self.host_header not in ("keep", "target"):
            raise UsageError(f"--host-header {self.host_header!r}: choose keep or target")
        if self.connections not in ("recorded", "pooled"):
            raise UsageError(f"--connections {self.connections!r}: choose recorded or pooled")
        if self.sessions not in ("live", "ordered", "off"):
            raise UsageError(f"--sessions {self.sessions!r}: choose live, ordered or off")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"--concurrency {self.concurrency} must be at least 1")
        if self.loop == 0 and self.duration is None:
            raise UsageError("--loop 0 runs for ever: say how long with --duration")
        self._check_abort()
        if self.spin < 0:
            raise UsageError(f"--spin {self.spin:g} must not be negative: it is in seconds")
        if self.tag is not None and not _TOKEN.fullmatch(self.tag):
            raise UsageError(f"--tag {self.tag!r} is not the name of a header")
        for option in ("timeout", "duration", "speed"):
            value = getattr(self, option)
            if value is not None and not value > 0:
                raise UsageError(f"--{option} {value:g} must be above 0")

    def _check_abort(self) -> None:
        if self.abort_verdict not in ("fail", "invalid"):
            raise UsageError(f"abort_verdict {self.abort_verdict!r}: choose fail or invalid")
        for name in (
            "ramp_up",
            "abort_errors",
            "abort_p99",
            "abort_failures",
            "abort_refused",
            "abort_least",
        ):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} {getattr(self, name):g} must not be negative; 0 switches it off")
        if not self.abort_window > 0:
            raise UsageError(f"abort_window {self.abort_window:g} must be above 0 seconds")
        for name in ("max_rate", "max_concurrency"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} {value:g} must be above 0")


_VARIABLE = re.compile(r"\$\{(\w+)\}")


def from_environment(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers with each `${NAME}` replaced; `UsageError` where the environment has no such variable."""

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UsageError(f"--set-header: the environment has no variable {found[1]}")
        return os.environ[found[1]]

    return tuple((name, _VARIABLE.sub(value_of, value)) for name, value in headers)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a run goes: the parts of its URL."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of a Host header for this target."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


def parse_target(url: str, option: str = "--target") -> Target:
    """`http://staging:8080` → its parts; `UsageError` for anything that is no such URL."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
    except ValueError as error:
        raise UsageError(f"{option} {url!r} is not a URL: {error}") from None
    try:
        port = parts.port
    except ValueError:
        raise UsageError(f"{option} {url!r}: the port is not a number from 1 to 65535") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{option} {url!r} is not a URL: write http://host:port or https://host")
    if parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageError(f"{option} {url!r}: give scheme, host and port only; paths come from the capture")
    return Target(url, parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


@dataclass(frozen=True, slots=True)
class Config:
    """replay.toml as a whole. Each table is optional."""

    path: Path | None = None
    routes: tuple[tuple[str, str], ...] = ()
    bind: tuple[Wish, ...] = ()
    rewrite: dict[str, Any] = field(default_factory=dict)
    auth: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    diff: dict[str, Any] = field(default_factory=dict)
    redact: tuple[dict[str, Any], ...] = ()
    """The `[[redact]]` tables; `replay.capture.redact.Policy.of` reads and checks them."""
    gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The tables of `replay gate`, by name; `replay.verbs.gate_settings` reads and checks them."""

    def run_settings(self, **options: Any) -> RunSettings:
        """The `[run]` table, overridden by what the command line said (options that are not `None`)."""
        given = {name: value for name, value in options.items() if value is not None}
        # Where a build of the gate runs is named as staging by that.
        urls = (self.gate.get(role, {}).get("url") for role in ("baseline", "candidate", "control"))
        staging = (*self.run.get("staging", ()), *(url for url in urls if isinstance(url, str)))
        if self.path is not None and (self.bind or self.rewrite or self.auth):
            given.setdefault("rules", str(self.path.resolve()))
        return replace(RunSettings(**{**self.run, "staging": staging}), **given)

    def diff_settings(self) -> DiffSettings:
        """The `[diff]` table."""
        table = self.diff
        return DiffSettings(
            compare=CompareSettings(
                rules=compile_rules(table.get("rule", ())),
                headers_ignored=FRAMING | frozenset(name.lower() for name in table.get("ignore_headers", ())),
                header_order=table.get("header_order", False),
            ),
            judge=JudgeSettings(**{key: table[key] for key in _JUDGE_KEYS if key in table}),
            latency=LatencySettings(**{key: table[key] for key in _LATENCY_KEYS if key in table}),
            accepted=acceptances.load(acceptances.beside(self.path)),
            today=datetime.now(UTC).date(),
            **{key: table[key] for key in _DIFF_KEYS if key in table},
        )


REWRITE_KEYS = ("rule", "sign", "time")
AUTH_KEYS = ("users", "header", "value", "on", "call", "token", "login")
LOGIN_KEYS = ("method", "target", "body", "content_type", "take")
TOKEN_KEYS = ("url", "grant", "client_id", "client_secret", "username", "password", "scope", "audience")
GATE_TABLES = ("gate", "baseline", "candidate", "control", "limits")

_JUDGE_KEYS = ("fdr", "min_ratio", "min_share")
_LATENCY_KEYS = ("tolerance", "floor_ms", "level")
_DIFF_KEYS = ("max_unpaired", "max_failed")


def load(path: Path | None) -> Config:
    """Read replay.toml; with `None`, the one in the current directory if there is one."""
    if path is None:
        path = Path("replay.toml")
        if not path.exists():
            return Config()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: write one, or leave --config out") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return _config(path, data)


def _config(path: Path, data: dict[str, Any]) -> Config:
    known = {"routes", "redact", "bind", "rewrite", "auth", "run", "diff", *GATE_TABLES}
    for key in data:
        if key not in known:
            raise ConfigError(f"{path}: unknown table [{key}]; known are {', '.join(sorted(known))}")
    return Config(
        path=path,
        routes=_routes(path, data.get("routes", [])),
        bind=_bind(path, data.get("bind", [])),
        rewrite=_rewrite(path, _table(path, data, "rewrite")),
        auth=_auth(path, _table(path, data, "auth")),
        redact=_redact_tables(path, data.get("redact", [])),
        run=_run_table(path, _table(path, data, "run")),
        diff=_diff_table(path, _table(path, data, "diff")),
        gate={key: _table(path, data, key) for key in GATE_TABLES if key in data},
    )


def _table(path: Path, data: dict[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {key} must be a table: write [{key}]")
    return table


def _routes(path: Path, routes: Any) -> tuple[tuple[str, str], ...]:
    """`routes = ["GET /users/{name}", "/files/{path}"]` → pairs of method (or `*`) and pattern."""
    if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
        raise ConfigError(f'{path}: routes must be a list of strings: routes = ["GET /users/{{name}}"]')
    pairs = []
    for route in routes:
        method, _, pattern = route.strip().rpartition(" ")
        if not pattern.startswith("/"):
            raise ConfigError(
                f"{path}: routes: {route!r} has no path; write 'GET /users/{{name}}' or '/users/{{name}}'"
            )
        pairs.append((method.strip().upper() or "*", pattern))
    return tuple(pairs)


_LISTS = (
    *("include", "exclude", "remove_headers"),
    *("writes", "deny", "production", "staging", "allow_target", "abort_groups"),
)


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    """A list of texts; one text stands for a list of itself."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError(f'{path}: [run] {key} must be a list of texts: {key} = ["..."]')
    return tuple(texts)


def _bind(path: Path, tables: Any) -> tuple[Wish, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: bindings are tables of their own: write [[bind]]")
    try:
        return wishes(tables)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _rewrite(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    for key in table:
        if key not in REWRITE_KEYS:
            raise ConfigError(
                f"{path}: [rewrite] has no key {key!r}; known are [[rewrite.rule]], [rewrite.sign] and [rewrite.time]"
            )
    rules = table.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError(f"{path}: rewrites are tables of their own: write [[rewrite.rule]]")
    try:
        compile_rewrites(rules, lambda name: lambda session, parts: parts)
        if "time" in table:
            times_of(_table(path, table, "time"))
        if "sign" in table:
            checked(_table(path, table, "sign"))
    except (ConfigError, UsageError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return table


def _auth(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    for key, value in table.items():
        if key not in AUTH_KEYS:
            raise ConfigError(f"{path}: [auth] has no key {key!r}; known are {', '.join(AUTH_KEYS)}")
        if key not in ("token", "login") and not isinstance(value, str):
            raise ConfigError(f"{path}: [auth] {key} must be a text")
    if table.get("on", "recorded") not in ("recorded", "all"):
        raise ConfigError(f'{path}: [auth] on = {table["on"]!r}: choose "recorded" or "all"')
    if "login" in table:
        login = _table(path, table, "login")
        for key, value in login.items():
            if key not in LOGIN_KEYS or not isinstance(value, str):
                raise ConfigError(
                    f"{path}: [auth.login] {key}: texts under {', '.join(LOGIN_KEYS)} are known"
                )
        if not login.get("target", "").startswith("/"):
            raise ConfigError(f'{path}: [auth.login] needs target = "/login"')
    if "token" in table:
        token = _table(path, table, "token")
        for key, value in token.items():
            if key not in TOKEN_KEYS or not isinstance(value, str):
                raise ConfigError(
                    f"{path}: [auth.token] {key}: texts under {', '.join(TOKEN_KEYS)} are known"
                )
        if not token.get("url", "").startswith(("http://", "https://")):
            raise ConfigError(f'{path}: [auth.token] needs url = "https://..."')
    _check_value(path, table)
    return table


def _check_value(path: Path, auth: Mapping[str, Any]) -> None:
    """What [auth] value speaks of must be there: it would be sent as it stands."""
    if "token" in auth and "login" in auth:
        raise ConfigError(f"{path}: [auth] has a token and a login: one of them is the credential")
    for name in ("token", "login"):
        if f"{{{name}}}" in auth.get("value", "") and name not in auth:
            raise ConfigError(f"{path}: [auth] value speaks of {{{name}}}, and there is no [auth.{name}]")
    if "{user." in auth.get("value", ""):
        raise ConfigError(
            f"{path}: [auth] value: columns of users go into [auth.login] and [[rewrite.rule]], not here"
        )


def _redact_tables(path: Path, tables: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: redaction rules are tables of their own: write [[redact]]")
    return tuple(tables)


def _run_table(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(RunSettings)}
    for key in table:
        if key not in names:
            raise ConfigError(f"{path}: [run] has no key {key!r}; known are {', '.join(sorted(names))}")
    settings = dict(table)
    for key in _LISTS:
        if key in settings:
            settings[key] = _texts(path, key, settings[key])
    if "set_headers" in settings:
        settings["set_headers"] = tuple(dict(settings["set_headers"]).items())
    try:
        RunSettings(**settings)
    except (UsageError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: [run]: {error}") from None
    return settings


def _diff_table(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    numbers = {*_JUDGE_KEYS, *_LATENCY_KEYS, *_DIFF_KEYS}
    for key, value in table.items():
        if key not in {*numbers, "rule", "ignore_headers", "header_order"}:
            known = ", ".join(sorted({*numbers, "ignore_headers", "header_order"}))
            raise ConfigError(f"{path}: [diff] has no key {key!r}; known are {known} and [[diff.rule]]")
        if key in numbers and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise ConfigError(f"{path}: [diff] {key} = {value!r} must be a number, not negative")
    if not isinstance(table.get("header_order", False), bool):
        raise ConfigError(f"{path}: [diff] header_order must be true or false")
    names = table.get("ignore_headers", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: [diff] ignore_headers must be a list of header names")
    rules = table.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError(f"{path}: rules are tables of their own: write [[diff.rule]]")
    try:
        compile_rules(rules)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return table
