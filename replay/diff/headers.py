"""Headers as an ordered multimap: names whatever their case, every value counted, order of one name kept.

Some values differ between any two answers and say nothing of the build. Of those, presence is still compared:
a build that stops sending `Set-Cookie` is seen. `FRAMING` is left out altogether: it says how the message
travelled (a length, or chunks), and the body is compared itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

from replay.findings import Difference
from replay.model import Header

_FRAMING = "connection content-length keep-alive proxy-connection te trailer transfer-encoding upgrade"
FRAMING = frozenset(_FRAMING.split())

_VALUE_IGNORED = """
age date etag expires last-modified via server-timing x-cache x-cache-hits x-served-by x-timer
x-response-time x-runtime x-process-time x-envoy-upstream-service-time x-kong-proxy-latency
x-kong-upstream-latency alt-svc nel report-to
request-id x-request-id x-correlation-id x-trace-id x-b3-traceid x-b3-spanid traceparent tracestate
x-amzn-trace-id x-amzn-requestid x-amz-request-id x-amz-id-2 x-amz-cf-id cf-ray x-cloud-trace-context
x-ratelimit-remaining x-ratelimit-reset ratelimit ratelimit-remaining ratelimit-reset
"""
VALUE_IGNORED = frozenset(_VALUE_IGNORED.split())
"""Clocks, identifiers of the request, caches' and gateways' remarks. Validators too: they follow the body,
which is compared itself, or the file's time, which is a deployment's."""

Multimap = dict[str, list[str]]


def header_differences(
    left: Sequence[Header],
    right: Sequence[Header],
    ignored: frozenset[str] = FRAMING,
    value_ignored: frozenset[str] = VALUE_IGNORED,
    order: bool = False,
) -> list[Difference]:
    """Where two header lists differ, names in lower case and in order of appearance.

    With `order` it is a difference too where the names that both have come in another order.
    """
    if left == right or _alike(left, right, ignored, value_ignored):
        return []
    old, new = multimap(left, ignored), multimap(right, ignored)
    found: list[Difference] = []
    for name, values in old.items():
        found += _differences(name, values, new.get(name), value_ignored)
    for name, values in new.items():
        if name not in old:
            found += _differences(name, None, values, value_ignored)
    if order:
        before, after = [n for n in old if n in new], [n for n in new if n in old]
        if before != after:
            found.append(Difference("headers", "order", ", ".join(before), ", ".join(after)))
    return found


_folded: dict[str, str] = {}


def fold(name: str) -> str:
    """The name in lower case; there are few, so they are remembered."""
    try:
        return _folded[name]
    except KeyError:
        folded = name.lower()
        if len(_folded) < 4096:
            _folded[name] = folded
        return folded


def _alike(
    left: Sequence[Header], right: Sequence[Header], ignored: frozenset[str], value_ignored: frozenset[str]
) -> bool:
    """The usual case at little cost: the same names in the same order, values equal or ignored."""
    if len(left) != len(right):
        return False
    for old, new in zip(left, right, strict=True):
        if old != new:
            name = fold(old[0])
            if name != fold(new[0]) or (name not in value_ignored and name not in ignored):
                return False
    return True


def multimap(headers: Sequence[Header], ignored: frozenset[str]) -> Multimap:
    """Lower-case name → values as they came."""
    found: Multimap = {}
    for name, value in headers:
        folded = fold(name)
        if folded not in ignored:
            found.setdefault(folded, []).append(value)
    return found


def _differences(
    name: str, old: list[str] | None, new: list[str] | None, value_ignored: frozenset[str]
) -> list[Difference]:
    path = f"headers.{name}"
    if name == "set-cookie":
        if old and new:
            return _cookie_differences(path, _jar(old), _jar(new))
        old, new = (lines and [_masked(line) for line in lines] for lines in (old, new))
    if old is None or new is None:
        kind = "extra" if old is None else "missing"
        return [Difference(path, kind, old and ", ".join(old), new and ", ".join(new))]
    if old == new or name in value_ignored:
        return []
    if name in _ADDRESSES and len(old) == len(new) == 1:
        return _address_differences(path, old[0], new[0])
    kind = "order" if sorted(old) == sorted(new) else "value"
    return [Difference(path, kind, ", ".join(old), ", ".join(new))]


_ADDRESSES = frozenset(("location", "content-location"))


def _address_differences(path: str, old: str, new: str) -> list[Difference]:
    """Where two addresses differ, at paths that name the part: `headers.location.host`, `.query.page`.

    Each build names itself in absolute addresses: a rule that ignores `headers.location.host` leaves the rest.
    """
    left, right = _parts(old), _parts(new)
    found = []
    for part in [*left, *(part for part in right if part not in left)]:
        if left.get(part) != right.get(part):
            kind = "missing" if part not in right else "extra" if part not in left else "value"
            found.append(Difference(f"{path}.{part}", kind, left.get(part), right.get(part)))
    # Written otherwise, though it means the same.
    return found or [Difference(path, "value", old, new)]


def _parts(address: str) -> dict[str, str]:
    try:
        split = urlsplit(address)
    except ValueError:
        return {"path": address}
    found = {"scheme": split.scheme, "host": split.netloc, "path": split.path, "fragment": split.fragment}
    for name, value in parse_qsl(split.query, keep_blank_values=True):
        found[f"query.{name}"] = f"{found[f'query.{name}']},{value}" if f"query.{name}" in found else value
    return {part: value for part, value in found.items() if value or part.startswith("query.")}


Cookie = dict[str, str]
"""The attributes of a Set-Cookie by their lower-case names, and under `""` whether there is a value at all."""


def _jar(lines: list[str]) -> dict[str, list[Cookie]]:
    """Cookies by name: of different names they may come in any order (RFC 6265, 4.1.1)."""
    jar: dict[str, list[Cookie]] = {}
    for line in lines:
        name, cookie = _cookie(line)
        jar.setdefault(name, []).append(cookie)
    return jar


def _cookie(line: str) -> tuple[str, Cookie]:
    """Name and what a build decides: not the value, nor the instant it expires, which change each time."""
    pair, *attributes = line.split(";")
    name, _, content = pair.partition("=")
    cookie = {"": "*" if content.strip() else ""}
    for attribute in attributes:
        key, _, value = attribute.partition("=")
        folded = key.strip().lower()
        if folded:
            cookie[folded] = "*" if folded == "expires" else value.strip()
    return name.strip(), cookie


def _cookie_differences(
    path: str, old: dict[str, list[Cookie]], new: dict[str, list[Cookie]]
) -> list[Difference]:
    """At `headers.set-cookie.sid` a cookie that came or went, or lost its value; below it its attributes."""
    found: list[Difference] = []
    for name in [*old, *(name for name in new if name not in old)]:
        left, right, here = old.get(name), new.get(name), f"{path}.{name}"
        if left is None or right is None or not len(left) == len(right) == 1:
            if left != right:
                kind = "extra" if left is None else "missing" if right is None else "value"
                found.append(
                    Difference(here, kind, left and _shown(name, left), right and _shown(name, right))
                )
            continue
        for key in [*left[0], *(key for key in right[0] if key not in left[0])]:
            before, after = left[0].get(key), right[0].get(key)
            if before != after:
                kind = "extra" if before is None else "missing" if after is None else "value"
                found.append(Difference(f"{here}.{key}" if key else here, kind, before, after))
    return found


def _masked(line: str) -> str:
    name, cookie = _cookie(line)
    return _shown(name, [cookie])


def _shown(name: str, cookies: list[Cookie]) -> str:
    return ", ".join(
        "; ".join(
            [
                f"{name}={cookie['']}",
                *(f"{key}={value}" if value else key for key, value in cookie.items() if key),
            ]
        )
        for cookie in cookies
    )
