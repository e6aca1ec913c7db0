"""Encryption at rest: nobody reads a dataset who has not its key.

Every dataset has a data key of its own, drawn at random, which stands in its metadata wrapped by the user's
key: from `$REPLAY_ENCRYPTION_KEY`, from the file that `$REPLAY_ENCRYPTION_KEY_FILE` names, or within a key
management service, spoken to by a class `$REPLAY_KMS=module:Class` (wrap_key and unwrap_key, as
`pyarrow.parquet.encryption.KmsClient` has them). Part files use Parquet modular encryption, which other tools
read too; the journal's blocks are sealed with AES-GCM. The names of columns and the number of rows are
sealed as well; `capture.json` and `run.json` are not: they hold settings, counts and the names of endpoints.

A run of a redacted capture has a sealed journal even without all this: answers of a live system stand in
it until they are redacted, on their way to Parquet.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import os
import secrets
import stat
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import orjson

from replay import keys
from replay.errors import ConfigError, InputError

KEY, KEY_FILE, KMS, KMS_KEY = (
    "REPLAY_ENCRYPTION_KEY",
    "REPLAY_ENCRYPTION_KEY_FILE",
    "REPLAY_KMS",
    "REPLAY_KMS_KEY",
)
_NONCE = 12
_SHORTEST = 16


class Keeper(Protocol):
    """Wraps data keys with the user's key; `key_id` tells one key from another and nothing else."""

    key_id: str

    def wrap(self, data_key: bytes) -> str: ...
    def unwrap(self, wrapped: str) -> bytes: ...


class Seal:
    """Seals blocks with AES-GCM under one key: what was changed does not open."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def close(self, plain: bytes) -> bytes:
        """Nonce, ciphertext, tag."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, None)

    def open(self, sealed: bytes) -> bytes:
        """`InputError` where it was sealed with another key, or changed."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except (InvalidTag, ValueError):
            raise InputError("it was sealed with another key, or changed since") from None


class OwnKey:
    """The user's key in hand."""

    def __init__(self, key: bytes) -> None:
        self.key_id = hmac.digest(key, b"encryption key id", "sha256").hex()[:16]
        self._seal = Seal(hmac.digest(key, b"wrap", "sha256"))

    def wrap(self, data_key: bytes) -> str:
        return base64.b64encode(self._seal.close(data_key)).decode()

    def unwrap(self, wrapped: str) -> bytes:
        return self._seal.open(base64.b64decode(wrapped))


class Service:
    """The user's key in a key management service, behind the user's class."""

    def __init__(self, client: Any, name: str, key: str) -> None:
        self.key_id = f"{name} {key}"
        self._client = client
        self._key = key

    def wrap(self, data_key: bytes) -> str:
        wrapped = self._client.wrap_key(data_key, self._key)
        return wrapped.decode() if isinstance(wrapped, bytes) else str(wrapped)

    def unwrap(self, wrapped: str) -> bytes:
        return bytes(self._client.unwrap_key(wrapped, self._key))


def keeper() -> Keeper | None:
    """The user's key, by the environment; `None` where none is set. `ConfigError` where it cannot be used."""
    if name := os.environ.get(KMS):
        return Service(_client(name), name, os.environ.get(KMS_KEY, "staging-replay"))
    if text := os.environ.get(KEY):
        return OwnKey(_derived(text, f"${KEY}"))
    if file := os.environ.get(KEY_FILE):
        return OwnKey(_derived(_read(Path(file)), file))
    return None


def begin() -> dict[str, str] | None:
    """What a new dataset's metadata says of its encryption: a fresh data key, wrapped; `None` for none."""
    found = keeper()
    if found is None:
        return None
    try:
        wrapped = found.wrap(secrets.token_bytes(32))
    except Exception as error:
        raise ConfigError(f"${KMS} cannot wrap a key: {_plain(error)}") from None
    return {"algorithm": "AES-GCM", "key": found.key_id, "wrapped": wrapped}


def data_key(directory: Path, meta: Mapping[str, Any]) -> bytes | None:
    """The data key of a dataset; `None` where it is not encrypted, `InputError` where the key is not at hand."""
    entry = meta.get("encryption")
    if not entry:
        return None
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(name), str) for name in ("key", "wrapped")
    ):
        raise InputError(f"{directory} is damaged: its metadata does not say how it is encrypted")
    return _unwrapped(str(directory), entry["key"], entry["wrapped"], _chosen())


@lru_cache(maxsize=64)
def _unwrapped(directory: str, key_id: str, wrapped: str, chosen: str) -> bytes:
    found = keeper()
    if found is None:
        raise InputError(f"{directory} is encrypted (key {key_id}): set ${KEY}, ${KEY_FILE} or ${KMS}")
    if found.key_id != key_id:
        raise InputError(f"{directory} is encrypted with another key: {key_id}, and {found.key_id} is set")
    try:
        return found.unwrap(wrapped)
    except Exception as error:
        raise InputError(
            f"{directory} is encrypted and its key cannot be unwrapped: {_plain(error)}"
        ) from None


def journal_seal(directory: Path) -> Seal | None:
    """What seals the journal in a directory: the data key, or else the key of the pseudonyms."""
    kind, meta = _metadata(directory)
    key = data_key(directory, meta)
    if key is None and kind == "run" and (redaction := redaction_of(meta)):
        key = hmac.digest(redaction_key(directory, redaction), b"journal", "sha256")
    return None if key is None else Seal(key)


def redaction_of(meta: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a dataset's metadata says of its redaction; `None` where nothing was redacted."""
    found = meta.get("settings", {}).get("redaction")
    return found if isinstance(found, dict) and found.get("key") else None


def redaction_key(directory: Path, redaction: Mapping[str, Any]) -> bytes:
    """The key of a run's pseudonyms. `InputError` where another one is at hand."""
    file = redaction.get("key_file")
    key = keys.load_key(Path(file) if file else None)
    if key_id(key) != redaction["key"]:
        raise InputError(
            f"{directory} needs the key of its pseudonyms ({redaction['key']}): set ${keys.VARIABLE} to it"
        )
    return key


def key_id(key: bytes) -> str:
    """Tells keys of pseudonyms apart, as captures note it."""
    return hmac.digest(key, b"key id", "sha256").hex()[:16]


def encryption_properties(directory: Path) -> Any:
    """What `pyarrow.parquet` needs to write a part of this dataset; `None` where it is plain."""
    _, meta = _metadata(directory)
    key = data_key(directory, meta)
    if key is None:
        return None
    from pyarrow.parquet import encryption as parquet

    how = parquet.EncryptionConfiguration(
        footer_key="data", uniform_encryption=True, data_key_length_bits=256
    )
    return _factory(key).file_encryption_properties(parquet.KmsConnectionConfig(), how)


def decryption_properties(directory: Path) -> Any:
    """What `pyarrow.parquet` needs to read a part of this dataset; `None` where it is plain."""
    _, meta = _metadata(directory)
    key = data_key(directory, meta)
    if key is None:
        return None
    from pyarrow.parquet import encryption as parquet

    return _factory(key).file_decryption_properties(parquet.KmsConnectionConfig(), _how_to_read())


def scan_options(directory: Path) -> Any:
    """What `pyarrow.dataset` needs to read a part of this dataset; `None` where it is plain."""
    _, meta = _metadata(directory)
    key = data_key(directory, meta)
    if key is None:
        return None
    import pyarrow.dataset as ds
    from pyarrow.parquet import encryption as parquet

    config = ds.ParquetDecryptionConfig(_factory(key), parquet.KmsConnectionConfig(), _how_to_read())
    return ds.ParquetFragmentScanOptions(decryption_config=config)


def _how_to_read() -> Any:
    from pyarrow.parquet import encryption as parquet

    return parquet.DecryptionConfiguration(cache_lifetime=timedelta(minutes=10))


@lru_cache(maxsize=64)
def _factory(key: bytes) -> Any:
    """Parquet's own way to its keys: each file's are wrapped by the dataset's data key."""
    from pyarrow.parquet import encryption as parquet

    seal = Seal(hmac.digest(key, b"parquet", "sha256"))

    class DataKey(parquet.KmsClient):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__()

        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
            return base64.b64encode(seal.close(key_bytes))

        def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
            return seal.open(base64.b64decode(wrapped_key))

    return parquet.CryptoFactory(DataKey)


def _metadata(directory: Path) -> tuple[str, Mapping[str, Any]]:
    """Kind and metadata, or nothing: a directory without them is not a dataset yet."""
    for kind in ("capture", "run"):
        try:
            meta = orjson.loads((directory / f"{kind}.json").read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(meta, dict):
            return kind, meta
    return "", {}


def _chosen() -> str:
    """Stands for the keys that are set, so that what was unwrapped with others is not remembered."""
    texts = "\0".join(os.environ.get(name, "") for name in (KEY, KEY_FILE, KMS, KMS_KEY))
    return hashlib.sha256(texts.encode("utf-8", "surrogateescape")).hexdigest()


def _client(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"${KMS}={name}: write module:Class")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        raise ConfigError(f"${KMS}={name}: cannot be imported: {_plain(error)}") from None
    except AttributeError:
        raise ConfigError(f"${KMS}={name}: {module} has no {attribute}") from None
    except Exception as error:
        raise ConfigError(f"${KMS}={name}: cannot be made: {_plain(error)}") from None


def _read(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"the key file {path} is open to others: chmod 600 {path}")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"the key file {path} (${KEY_FILE}) cannot be read: {error.strerror}") from None


def _derived(text: str, source: str) -> bytes:
    text = text.strip()
    if len(text) < _SHORTEST:
        raise ConfigError(f"the key in {source} is too short: use {_SHORTEST} characters or more")
    return hashlib.sha256(b"staging-replay encryption\0" + text.encode("utf-8", "surrogateescape")).digest()


def _plain(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
