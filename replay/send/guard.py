"""The right target only: a replay must never reach what it was recorded from.

A target is refused where its name or one of its addresses is among those the capture was recorded at, or is
listed as production. On the loopback interface many services share one address, so there the port has to be
the same too; everywhere else a captured host is refused on whatever port. A target with an address that the
whole internet can reach must have been named as staging. `--allow-target` overrides all of this for one host.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from replay.config import RunSettings, Target
from replay.errors import TargetError
from replay.send.target import addresses_of
from replay.store.reader import Dataset

_LOOKUP_S = 3.0
_MOST_LOOKUPS = 200
# Names that are never in the public name service (RFC 6761, RFC 2606): asking for them only takes time.
_NOWHERE = (".test", ".invalid", ".example", ".localhost")
_DEFAULT_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Place(NamedTuple):
    """Where production was met: a host in lower case and a port."""

    host: str
    port: int


@lru_cache(maxsize=16)
def admit(target: Target, capture: Path, settings: RunSettings) -> RunSettings:
    """The settings with the target's address pinned for the run; `TargetError` where it must not be hit."""
    addresses = addresses_of(target, settings)
    if not _is_named(target, settings.allow_target):
        reason = refusal(target, addresses, places_of(capture), settings)
        if reason is not None:
            raise TargetError(
                f"--target {target.url} is refused: {reason}; if it is meant, say --allow-target {target.host}"
            )
    return replace(settings, address=addresses[0])


def refusal(
    target: Target, addresses: tuple[str, ...], captured: frozenset[Place], settings: RunSettings
) -> str | None:
    """Why the target must not be hit, or `None`."""
    found = [_address(text) for text in addresses]
    for listed in settings.production:
        if _is_listed(target, found, listed):
            return f"{listed} is listed as production"
    port_counts = all(map(_is_loopback, found))
    host = normal(target.host)
    suspects = [place for place in sorted(captured) if not port_counts or place.port == target.port]
    for place in suspects:
        if place.host == host:
            return f"the capture was recorded at {place.host}:{place.port}"
    for name, known in look_up({place.host for place in suspects}).items():
        if shared := known.intersection(found):
            return f"it is at {min(map(str, shared))}, as {name} is, where the capture was recorded"
    public = next((address for address in found if address.is_global), None)
    if public is not None and not _is_named(target, settings.staging):
        return f"{public} is a public address, and {target.host} is not among [run] staging in replay.toml"
    return None


def places_of(capture: Path) -> frozenset[Place]:
    """Where a capture was recorded: the hosts its requests asked for, and the service behind the proxy."""
    dataset = Dataset.open(capture, "capture")
    places = {
        place
        for host, scheme in dataset.counts(("host", "scheme"))
        if (place := _place(host, _DEFAULT_PORTS.get(scheme, 80)))
    }
    modes = dataset.meta["source"].get("mode", ())
    for mode in modes if isinstance(modes, list) else ():
        scheme, _, authority = str(mode).partition("reverse:")[2].partition("://")
        place = _place(authority.partition("/")[0], _DEFAULT_PORTS.get(scheme, 80))
        # A service on the proxy's own machine is what one records, and replays to, at a desk.
        if place and not _is_local(place.host):
            places.add(place)
    return frozenset(places)


def look_up(hosts: Iterable[str]) -> dict[str, frozenset[Address]]:
    """The addresses of the hosts, asked for at once; who has not answered in a few seconds has none."""
    found: dict[str, frozenset[Address]] = {}

    def ask(host: str) -> None:
        found[host] = _resolved(host)

    threads = [
        threading.Thread(target=ask, args=(host,), daemon=True) for host in sorted(hosts)[:_MOST_LOOKUPS]
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _LOOKUP_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def normal(host: str) -> str:
    """A host as it is compared: lower case, without brackets and a closing dot."""
    return host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _resolved(host: str) -> frozenset[Address]:
    if host.endswith(_NOWHERE):
        return frozenset()
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(_address(str(item[4][0])) for item in found)


def _place(authority: str, default_port: int) -> Place | None:
    """`host:port` from the wire → a place; `None` where it is none."""
    try:
        parts = urlsplit(f"//{authority.strip()}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        return None
    return Place(normal(host), port) if host else None


def _is_listed(target: Target, addresses: list[Address], listed: str) -> bool:
    """Whether the target is what `listed` says: a host or a pattern of hosts, an address, or a network."""
    pattern = normal(listed)
    try:
        network = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        if fnmatchcase(normal(target.host), pattern):
            return True
        return not {"*", "?"}.intersection(pattern) and not _resolved(pattern).isdisjoint(addresses)
    return any(address in network for address in addresses)


def _is_named(target: Target, names: Iterable[str]) -> bool:
    """Whether one of the names, `host` or `host:port` or a URL, is the target exactly."""
    for name in names:
        try:
            parts = urlsplit(name if "//" in name else f"//{name}")
            host, port = parts.hostname, parts.port
        except ValueError:
            continue
        if host and normal(host) == normal(target.host) and port in (None, target.port):
            return True
    return False


def _address(text: str) -> Address:
    """An address without a scope, an IPv4 one as itself where it comes in the clothes of IPv6."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _is_local(host: str) -> bool:
    try:
        return _is_loopback(_address(host))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_loopback(address: Address) -> bool:
    return address.is_loopback or address.is_unspecified
