"""What the user's replay.toml says of requests, made ready: rules, test users, functions of the user's own."""

from __future__ import annotations

import csv
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replay.config import Config
from replay.errors import ConfigError
from replay.plan.rewrite import Rewriter, compile_rewrites

_ENV = re.compile(r"\{env\.([^{}]+)\}")


def rewriter_of(config: Config) -> Rewriter | None:
    """The rewrites that the file asks for, `None` where it asks for none."""
    rules = config.rewrite.get("rule", [])
    if not rules:
        return None
    functions = Functions(config)
    return Rewriter(compile_rewrites(rules, functions.find), users_of(config), dict(os.environ))


class Functions:
    """Finds `module:function`, looking beside the configuration file first."""

    def __init__(self, config: Config) -> None:
        self._directory = (config.path or Path()).resolve().parent

    def find(self, name: str) -> Callable[..., Any]:
        """The function; `ConfigError` where it cannot be had."""
        module, colon, attribute = name.partition(":")
        if not colon or not module or not attribute:
            raise ConfigError(f'call = "{name}": write "module:function"')
        sys.path.insert(0, str(self._directory))
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise ConfigError(f'call = "{name}" cannot be had from {self._directory}: {error}') from None
        finally:
            sys.path.remove(str(self._directory))
        if not callable(found):
            raise ConfigError(f'call = "{name}" is no function')
        return found  # type: ignore[no-any-return]


def filled(text: str, where: str, escape: Callable[[str], str] = str) -> str:
    """The text with `{env.NAME}` replaced, each value as `escape` writes it; `ConfigError` for one that is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"{where}: the environment has no variable {found[1]}")
        return escape(os.environ[found[1]])

    return _ENV.sub(value, text)


def users_of(config: Config) -> list[dict[str, str]]:
    """The rows of the CSV file of test users, by its header line; empty where none is named."""
    name = config.auth.get("users")
    if name is None:
        return []
    path = (config.path or Path()).resolve().parent / name
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"[auth] users: {path} cannot be read: {error}") from None
    if not rows:
        raise ConfigError(f"[auth] users: {path} has no rows below its header line")
    return rows
