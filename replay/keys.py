"""The key behind all pseudonyms: from the environment, or from a file made at first use.

Whoever has it can test guesses against pseudonyms, so the file is its owner's alone. Captures made with the
same key share pseudonyms and samples; a lost key only means that new captures do not match old ones.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from hashlib import sha256
from pathlib import Path

from replay.errors import ConfigError

VARIABLE = "REPLAY_KEY"
_SHORTEST = 16


def default_path() -> Path:
    """Where the key file is, unless told otherwise."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "staging-replay" / "key"


def load_key(path: Path | None = None) -> bytes:
    """The 32-byte key from `path`, else from `$REPLAY_KEY`, else from the default file, made where missing.

    Raises `ConfigError` for a key that is too short, or a file that others may read.
    """
    text = os.environ.get(VARIABLE)
    if path is None and text is not None:
        return _derive(text, f"${VARIABLE}")
    path = path or default_path()
    try:
        return _derive(_read(path), str(path))
    except OSError as error:
        raise ConfigError(
            f"the key file {path} cannot be used ({error.strerror}): name another with --key-file,"
            f" or set ${VARIABLE}"
        ) from None


def _read(path: Path) -> str:
    with contextlib.suppress(FileExistsError):
        if not path.exists():
            _make(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"the key file {path} is open to others: chmod 600 {path}")
    return path.read_text(encoding="utf-8", errors="replace")


def _make(path: Path) -> None:
    # Written beside and linked into place: of several processes that come first together, one key wins.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{secrets.token_hex(32)}\n".encode())
        os.close(descriptor)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _derive(text: str, source: str) -> bytes:
    # Hashed as text, whatever it encodes: there is no second way to read the same key.
    text = text.strip()
    if len(text) < _SHORTEST:
        raise ConfigError(
            f"the key in {source} is too short: use {_SHORTEST} characters or more (openssl rand -hex 32)"
        )
    return sha256(b"staging-replay key\0" + text.encode("utf-8", "surrogateescape")).digest()
