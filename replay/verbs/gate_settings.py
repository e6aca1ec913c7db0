"""What a gate is to do, read from replay.toml and checked at once: every error names the key and the fix."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from replay.config import Config, parse_target
from replay.errors import ConfigError, UsageError
from replay.report.dossier import BASELINE, CANDIDATE, CONTROL, ROLES
from replay.report.fidelity import FidelityLimits
from replay.report.gate import Limits
from replay.store.remote import is_remote, readable


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """One build: the URL where it runs, or the command that starts it.

    `command` and `reset` are argument lists; `{port}` in them, in `env`, `url` and `ready` is a free port.
    `ready` is a path or URL that answers below 400 once the build is up (`None`: its port takes
    connections). Times are in seconds.
    """

    role: str
    url: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    ready: str | None = None
    timeout: float = 60.0
    grace: float = 10.0
    log: Path | None = None
    reset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateSettings:
    """The whole gate. `builds` holds baseline and candidate, and the control where it is a build of its own."""

    capture: Path
    out: Path
    title: str
    with_control: bool
    at_once: bool
    confirm: bool
    builds: Mapping[str, BuildSettings]
    limits: Limits
    fidelity: FidelityLimits

    @property
    def roles(self) -> tuple[str, ...]:
        """The runs to make, in their order."""
        return tuple(role for role in ROLES if role != CONTROL or self.with_control)

    def build(self, role: str) -> BuildSettings:
        """The build behind a run: the control's is the baseline's, unless it has its own."""
        return self.builds.get(role) or self.builds[BASELINE]


_GATE: Mapping[str, type | tuple[type, ...]] = {
    "capture": str,
    "out": str,
    "title": str,
    "control": bool,
    "at_once": bool,
    "confirm": bool,
}
_BUILD: Mapping[str, type | tuple[type, ...]] = {
    "url": str,
    "command": (str, list),
    "env": dict,
    "directory": str,
    "ready": str,
    "timeout": (int, float),
    "grace": (int, float),
    "log": str,
    "reset": (str, list),
}
_COUNTS = ("regressions", "suspects", "slower")
_RATIOS = {"p50_ratio": 0.5, "p95_ratio": 0.95, "p99_ratio": 0.99}
_WORDS: Mapping[Any, str] = {
    str: "a text in quotes",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    int: "a number",
    float: "a number",
}


def gate_settings(config: Config, out: Path | None = None) -> GateSettings:
    """The gate of a configuration; relative paths count from the file. `ConfigError` for whatever is off."""
    if config.path is None:
        raise ConfigError("a gate needs a replay.toml: `replay init` writes one, --config names another")
    path, tables = config.path, config.gate
    gate = _checked(path, "gate", tables.get("gate", {}), _GATE)
    home = path.parent
    if "capture" not in gate:
        raise ConfigError(f'{path}: [gate] needs a capture: capture = "captures/mine"')
    builds = {role: _build(path, role, tables[role]) for role in ROLES if role in tables}
    for role in (BASELINE, CANDIDATE):
        if role not in builds:
            raise ConfigError(
                f"{path}: [{role}] is missing: say where that build is (url) or how to start it (command)"
            )
    if CONTROL in builds and not gate.get("control", True):
        raise ConfigError(f"{path}: [gate] control = false, but there is a [control]: leave one of them out")
    return GateSettings(
        capture=readable(gate["capture"]) if is_remote(gate["capture"]) else home / gate["capture"],
        out=out or home / gate.get("out", "gate-out"),
        title=gate.get("title", "Replay gate"),
        with_control=gate.get("control", True),
        at_once=gate.get("at_once", False),
        confirm=gate.get("confirm", True),
        builds=builds,
        limits=_limits(path, tables.get("limits", {})),
        fidelity=fidelity_limits(config),
    )


def fidelity_limits(config: Config) -> FidelityLimits:
    """`[limits.fidelity]`, for every command that judges a run. `ConfigError` for whatever is off."""
    table = config.gate.get("limits", {}).get("fidelity", {})
    path, name = config.path or Path(), "limits.fidelity"
    known = [item.name for item in fields(FidelityLimits)]
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: fidelity limits are a table of their own: write [{name}]")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: [{name}] has no key {key!r}; known are {', '.join(known)}")
        _number(path, name, key, value)
    return FidelityLimits(**table)


def _checked(
    path: Path, name: str, table: Mapping[str, Any], keys: Mapping[str, type | tuple[type, ...]]
) -> Mapping[str, Any]:
    for key, value in table.items():
        if key not in keys:
            raise ConfigError(f"{path}: [{name}] has no key {key!r}; known are {', '.join(sorted(keys))}")
        wanted = keys[key]
        odd = isinstance(value, bool) and wanted is not bool
        if odd or not isinstance(value, wanted):
            kinds = wanted if isinstance(wanted, tuple) else (wanted,)
            meant = " or ".join(dict.fromkeys(_WORDS[kind] for kind in kinds))
            raise ConfigError(f"{path}: [{name}] {key} = {value!r} must be {meant}")
    return table


def _build(path: Path, role: str, raw: Mapping[str, Any]) -> BuildSettings:
    table = _checked(path, role, raw, _BUILD)
    command = _arguments(path, role, "command", table.get("command"))
    for key in ("timeout", "grace"):
        if not table.get(key, 1) > 0:
            raise ConfigError(f"{path}: [{role}] {key} = {table[key]!r} must be above 0 seconds")
    return BuildSettings(
        role=role,
        url=_url(path, role, table.get("url"), bool(command)),
        command=command,
        env=_env(path, role, table.get("env", {})),
        directory=path.parent / table["directory"] if "directory" in table else path.parent,
        ready=_ready(path, role, table.get("ready")),
        timeout=float(table.get("timeout", 60.0)),
        grace=float(table.get("grace", 10.0)),
        log=path.parent / table["log"] if "log" in table else None,
        reset=_arguments(path, role, "reset", table.get("reset")),
    )


def _url(path: Path, role: str, url: str | None, started: bool) -> str:
    """Where the build is; one that is started, and does not say, is at a free port of this machine."""
    if not url and not started:
        raise ConfigError(f"{path}: [{role}] needs a url (where it runs) or a command (how to start it)")
    if not url:
        return "http://127.0.0.1:{port}"
    if "{port}" in url and not started:
        raise ConfigError(
            f"{path}: [{role}] url: {{port}} is for builds with a command: write the port itself"
        )
    try:
        parse_target(url.replace("{port}", "1"), f"{path}: [{role}] url")
    except UsageError as error:
        raise ConfigError(str(error)) from None
    return url


def _env(path: Path, role: str, table: Mapping[str, Any]) -> Mapping[str, str]:
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"{path}: [{role}] env: {name} = {value!r} must be a text in quotes")
    return {name: str(value) for name, value in table.items()}


def _ready(path: Path, role: str, ready: str | None) -> str | None:
    if ready is None or ready.startswith("/"):
        return ready
    try:
        parts = urlsplit(ready)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # The port may be that of the build itself.
        usable = "{port}" in ready and ready.startswith(("http://", "https://"))
    if not usable:
        raise ConfigError(f'{path}: [{role}] ready = {ready!r} must be a path ("/health") or an http URL')
    return ready


def _arguments(path: Path, role: str, key: str, given: str | Sequence[Any] | None) -> tuple[str, ...]:
    """A list as it is; a text as the shell reads it: pipes, variables and all."""
    if not given:
        return ()
    if isinstance(given, str):
        return ("/bin/sh", "-c", given)
    if not all(isinstance(item, str) for item in given):
        raise ConfigError(f"{path}: [{role}] {key} must be a text, or a list of texts")
    return tuple(given)


def shown(command: Sequence[str]) -> str:
    """A command as its user wrote it."""
    return command[2] if command[:2] == ("/bin/sh", "-c") else shlex.join(command)


def _limits(path: Path, table: Mapping[str, Any]) -> Limits:
    """`[limits]`: counts, error_rate, pNN_ratio; `[limits.all]` and `[limits.endpoint."GET /x"]`: pNN_ratio."""
    known = (*_COUNTS, "error_rate", *_RATIOS, "all", "endpoint", "fidelity")
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: [limits] has no key {key!r}; known are {', '.join(known)}")
    counts: dict[str, int | None] = {}
    for key in _COUNTS:
        if key in table:
            counts[key] = _count(path, key, table[key])
    endpoints = table.get("endpoint", {})
    if not isinstance(endpoints, dict) or not all(isinstance(limits, dict) for limits in endpoints.values()):
        raise ConfigError(
            f'{path}: an endpoint\'s limits are a table of their own: [limits.endpoint."GET /x"]'
        )
    return Limits(
        **counts,
        error_rate=_number(path, "limits", "error_rate", table["error_rate"])
        if "error_rate" in table
        else None,
        ratios=_ratios(path, "limits", {key: table[key] for key in _RATIOS if key in table}),
        overall=_ratios(path, "limits.all", table.get("all", {})),
        endpoints={
            name: _ratios(path, f'limits.endpoint."{name}"', limits) for name, limits in endpoints.items()
        },
    )


def _count(path: Path, key: str, value: Any) -> int | None:
    """A number, or `"any"` for no limit."""
    if value == "any":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f'{path}: [limits] {key} = {value!r} must be a whole number, 0 or more, or "any"')
    return value


def _ratios(path: Path, name: str, table: Any) -> Mapping[float, float]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: [{name}] must be a table")
    for key in table:
        if key not in _RATIOS:
            raise ConfigError(f"{path}: [{name}] has no key {key!r}; known are {', '.join(_RATIOS)}")
    return {_RATIOS[key]: _number(path, name, key, value) for key, value in table.items()}


def _number(path: Path, name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"{path}: [{name}] {key} = {value!r} must be a number, not negative")
    return float(value)
