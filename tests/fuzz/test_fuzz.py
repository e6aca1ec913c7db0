"""Every reader of foreign bytes, fed with damaged and made-up ones: only `ReplayError` ever comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import ReplayError
from tests.fuzz.targets import TARGETS

Edit = tuple[int, int, bytes]
_PLACES = 1 << 16


def edits(words: Sequence[bytes]) -> st.SearchStrategy[list[Edit]]:
    """Where to cut (as a share of the length), how much, and what to put there."""
    place = st.integers(0, _PLACES)
    length = st.one_of(st.just(0), st.integers(1, 12), st.integers(0, 1 << 12))
    word = st.one_of(
        st.just(b""), st.sampled_from(words), st.binary(max_size=12), st.binary(min_size=1, max_size=1)
    )
    return st.lists(st.tuples(place, length, word), max_size=6)


def edited(seed: bytes, changes: list[Edit]) -> bytes:
    for place, length, word in changes:
        at = place * len(seed) // _PLACES
        seed = seed[:at] + word + seed[at + length :]
    return seed


@pytest.mark.parametrize("name", TARGETS)
def test_takes_anything(name: str) -> None:
    target = TARGETS[name]
    damaged = st.builds(edited, st.sampled_from(target.seeds), edits(target.words))
    made_up = st.lists(st.sampled_from([*target.words, *target.seeds]) | st.binary(max_size=20), max_size=12)

    @settings(
        max_examples=1000,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(damaged | made_up.map(b"".join))
    def run(data: bytes) -> None:
        with suppress(ReplayError):
            target.run(data)

    run()


_HEAD = b"/\nContent-Type: multipart/form-data; boundary=x\n\n--x\r\nContent-Disposition: form-data; name="
_GOR = b"1 a1 1700000000000000000 0\nGET / HTTP/1.1\r\nContent-Length: %b\r\n\r\n"
FOUND = {
    "a charset that is no name": ("compared", b"content-type: text/html; charset=utf\0-8\n\n<p>\n====\n<b>"),
    "a host that is no host": (
        "configured",
        b'[baseline]\nurl = "http://[x"\n[candidate]\nurl = "http://a"\n',
    ),
    "settings nested deeply": ("configured", b"a = " + b"[" * 20_000),
    "a number of many digits": ("configured", b"a = " + b"9" * 5_000),
    "a length of many digits": ("imported", _GOR % (b"9" * 5_000)),
    "a length in other digits": ("imported", _GOR % "²".encode()),
    "a form's name without end": ("correlated", _HEAD + b'"' + b"[" * 100_000),
    "a form's name again and again": ("redacted", _HEAD + b"a name=" * 15_000),
    "a form's head without end": ("redacted", _HEAD + b"a\r\nContent-Disposition: form-data; name=" * 3_000),
}


@pytest.mark.parametrize(("name", "data"), FOUND.values(), ids=FOUND)
def test_found_before(name: str, data: bytes) -> None:
    with suppress(ReplayError):
        TARGETS[name].run(data)


REPEATED = (
    *(
        b"[",
        b'{"a":',
        b'"',
        b"a",
        b"1 ",
        b"\n",
        b"\r\n",
        b"a=b&",
        b"a;",
        b"%41",
        b"/1",
        b"<a ",
        b"<a>",
        b"a.",
        b"a@",
    ),
    *(b"://", b"eyJa.", b"\\u0041", b'"a":1,', b'"password":', b"--x\r\n", b"key: v\n", b"*", b".."),
)
_LONG = 60_000


@pytest.mark.parametrize("name", TARGETS)
def test_long_inputs_take_no_long_time(name: str) -> None:
    """Something repeated at some place: what grows with the square of it would exceed the test's time by far."""
    for seed in TARGETS[name].seeds[:4]:
        for cut in {0, len(seed) // 3, seed.find(b"=") + 1, seed.rfind(b'"') + 1, len(seed)}:
            for word in REPEATED:
                with suppress(ReplayError):
                    TARGETS[name].run(seed[:cut] + word * (_LONG // len(word)))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_taken(name: str) -> None:
    """Fuzzing begins at inputs that reach the inside."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


ODD = (
    *range(-1, 2),
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    True,
    None,
    "",
    "x",
    "1",
    [],
    [1],
    ["x"],
    {},
    {"x": 1},
)


def odd_entries(entry: Any) -> Iterator[Any]:
    """The document with each of its values replaced by each odd one, or left out."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            yield {name: other for name, other in entry.items() if name != key}
            yield from ({**entry, key: odd} for odd in (*ODD, *odd_entries(value)))
    elif isinstance(entry, list):
        for place, value in enumerate(entry):
            yield from ([*entry[:place], odd, *entry[place + 1 :]] for odd in (*ODD, *odd_entries(value)))


def test_har_with_any_value_anywhere() -> None:
    """Whoever writes HAR differently is told so, or understood."""
    target = TARGETS["imported"]
    for document in odd_entries(json.loads(target.seeds[0])):
        with suppress(ReplayError):
            target.run(json.dumps(document).encode())


def test_metadata_with_any_value_anywhere() -> None:
    target = TARGETS["dataset"]
    meta, _, part = target.seeds[0].partition(b"\n\n")
    for document in odd_entries(json.loads(meta)):
        with suppress(ReplayError):
            target.run(json.dumps(document).encode() + b"\n\n" + part)


TOML = (
    *["0", "-1", "1e400", "nan", "inf", "true", "2027-01-31", "{}", "[]", "[1]"],
    '""',
    '"x"',
    '["x"]',
    '[""]',
    "{x = 1}",
    '[{x = "y"}]',
)


@pytest.mark.parametrize("name", ["configured", "accepted"])
def test_settings_with_any_value_anywhere(name: str) -> None:
    target = TARGETS[name]
    lines = target.seeds[0].decode().splitlines()
    for number, line in enumerate(lines):
        key, equals, _ = line.partition(" = ")
        for value in TOML if equals else ():
            with suppress(ReplayError):
                target.run("\n".join([*lines[:number], f"{key} = {value}", *lines[number + 1 :]]).encode())
