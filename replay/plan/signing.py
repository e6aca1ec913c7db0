"""Signatures over a request as it is about to be sent: an HMAC of what the user names, in a header."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from replay.errors import ConfigError

OVER = ("method", "target", "timestamp", "body")
_HASHES = ("sha1", "sha256", "sha384", "sha512")


class Signing(NamedTuple):
    """`[rewrite.sign]`, checked. `kind` is `hmac` or `aws`; `secret` the HMAC's key as text, filled in."""

    kind: str
    header: str = ""
    secret: str = ""
    over: tuple[str, ...] = OVER
    hash: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    separator: str = "\n"
    timestamp_header: str = ""
    service: str = ""
    region: str = ""


def checked(table: Mapping[str, Any]) -> Signing:
    """The table as settings; `ConfigError` names the key and the fix."""
    for key in table:
        if key not in Signing._fields:
            raise ConfigError(f"[rewrite.sign] has no key {key!r}; known are {', '.join(Signing._fields)}")
        if key != "over" and not isinstance(table[key], str):
            raise ConfigError(f"[rewrite.sign] {key} must be a text")
    over = table.get("over", OVER)
    if not isinstance(over, list | tuple) or not over or not all(part in OVER for part in over):
        raise ConfigError(f"[rewrite.sign] over is a list of some of {', '.join(OVER)}")
    made = Signing(**{"kind": "", **table, "over": tuple(over)})
    if made.kind not in ("hmac", "aws"):
        raise ConfigError(f'[rewrite.sign] kind = {made.kind!r}: choose "hmac" or "aws"')
    if made.kind == "aws" and not (made.service and made.region):
        raise ConfigError(
            '[rewrite.sign] kind = "aws" needs service and region, such as "execute-api", "eu-west-1"'
        )
    if made.kind == "hmac" and not (made.header and made.secret):
        raise ConfigError(
            '[rewrite.sign] kind = "hmac" needs header and secret: secret = "{env.SIGNING_KEY}"'
        )
    if made.hash not in _HASHES or made.encoding not in ("hex", "base64"):
        raise ConfigError(
            f'[rewrite.sign]: hash is one of {", ".join(_HASHES)}; encoding is "hex" or "base64"'
        )
    return made


def signed(signing: Signing, head: bytes, body: bytes, now: int) -> bytes:
    """The head with the signature in its header; `now` in seconds of the epoch is the timestamp."""
    method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
    values = {"method": method, "target": target, "timestamp": str(now).encode(), "body": body}
    text = signing.separator.encode().join(values[name] for name in signing.over)
    digest = hmac.digest(signing.secret.encode(), text, getattr(hashlib, signing.hash))
    told = digest.hex() if signing.encoding == "hex" else base64.b64encode(digest).decode()
    if signing.timestamp_header:
        head = with_header(head, signing.timestamp_header, str(now))
    return with_header(head, signing.header, signing.prefix + told)


def with_header(head: bytes, name: str, value: str, *, only_there: bool = False) -> bytes:
    """The head with that header line, in the place of the first of that name; with `only_there`, nowhere else."""
    line = f"{name}: {value}".encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
    pattern = re.compile(
        rb"(?<=\r\n)%b:[^\r\n]*(?=\r\n)" % re.escape(name.encode("latin-1", "replace")), re.IGNORECASE
    )
    if pattern.search(head):
        return pattern.sub(lambda _: line, head, count=1)
    return head if only_there else head[:-2] + line + b"\r\n\r\n"
