"""The target, resolved once for the whole run: an address to connect to and how to speak there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from replay.config import RunSettings, Target
from replay.errors import ConfigError, TargetError
from replay.send.plan_stream import Planned


class Endpoint(NamedTuple):
    """Where and how to connect. `address` is resolved once for the whole run."""

    family: int
    address: tuple[Any, ...]
    tls: ssl.SSLContext | None
    server_name: str | None
    max_body: int
    finish: Callable[[Planned], Planned] | None = None
    """The last touch to an arrival, at the instant it is sent."""


def resolve(target: Target, settings: RunSettings) -> Endpoint:
    """Where to connect: to the pinned address if there is one. `TargetError` when the name is unknown."""
    family, _, _, _, address = _found(target, settings)[0]
    return Endpoint(
        family=int(family),
        address=address,
        tls=_context(settings) if target.scheme == "https" else None,
        server_name=target.host,
        max_body=settings.max_body,
    )


def addresses_of(target: Target, settings: RunSettings) -> tuple[str, ...]:
    """Every address of the target, or the one that is pinned, the one to be used first."""
    return tuple(dict.fromkeys(str(item[4][0]) for item in _found(target, settings)))


def _found(target: Target, settings: RunSettings) -> list[Any]:
    try:
        return socket.getaddrinfo(settings.address or target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TargetError(f"--target {target.url}: {target.host} cannot be resolved ({reason})") from None


def check_reachable(target: Target, settings: RunSettings) -> None:
    """Connect once and hang up; `TargetError` says why the target cannot be used."""
    endpoint = resolve(target, settings)
    try:
        with socket.create_connection(endpoint.address[:2], timeout=min(settings.timeout, 10)) as plain:
            if endpoint.tls is not None:
                endpoint.tls.wrap_socket(plain, server_hostname=target.host).close()
    except ssl.SSLCertVerificationError as error:
        raise TargetError(
            f"--target {target.url}: its certificate is not trusted ({error.verify_message});"
            " name its CA with --ca, or use --insecure"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise TargetError(
            f"--target {target.url} cannot be reached: {reason}; is the build running?"
        ) from None


def _context(settings: RunSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except OSError as error:
        raise ConfigError(f"--ca {settings.ca}: {error.strerror or error}") from None
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Only HTTP/1.1 is spoken: a server must not choose anything else.
    context.set_alpn_protocols(["http/1.1"])
    return context
