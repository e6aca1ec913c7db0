"""Results are redacted on their way from the journal to Parquet, by the policy of their capture.

The answers of staging hold staging's secrets: cookies, tokens, whatever a login hands out. They get pseudonyms
as the capture's did, with the same key in every run, so that equal secrets stay equal and the differ sees
what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from replay.capture.redact import Policy, Redactor, pseudonym
from replay.store import metadata
from replay.store.schema import RESULTS
from replay.store.sealing import redaction_key, redaction_of
from replay.store.tables import split_head

Rows = list[list[Any]]

_HEAD, _BODY, _HEADERS, _ANSWER, _CUT, _LEARNED = (
    RESULTS.names.index(name)
    for name in ("sent_head", "sent_body", "response_headers", "response_body", "truncated", "learned")
)


def refiner(directory: Path, kind: str) -> Callable[[Rows], Rows] | None:
    """What takes the secrets out of a run's rows; `None` where its capture was not redacted."""
    if kind != "run" or not (directory / "run.json").exists():
        return None
    meta = metadata.load(directory, kind)
    redaction = redaction_of(meta)
    if redaction is None:
        return None
    key = redaction_key(directory, redaction)
    policy = Policy.of(redaction.get("rules", ()))
    # A header that the user sets is there to let the replay in: its value is a secret whatever it is called.
    mine = {str(pair[0]).lower() for pair in meta["settings"].get("set_headers") or ()}
    redactor = Redactor(replace(policy, headers=policy.headers | mine), key)
    return lambda rows: [_redacted(row, redactor, key) for row in rows]


def _redacted(row: list[Any], redactor: Redactor, key: bytes) -> list[Any]:
    before = (row[_HEAD], row[_BODY], row[_HEADERS], row[_ANSWER])
    redactor.begin()
    if row[_HEAD] is not None:
        row[_HEAD], row[_BODY] = _request(row[_HEAD], row[_BODY], redactor)
    headers = row[_HEADERS]
    pairs = split_head(headers) if isinstance(headers, bytes) else [(n, v) for n, v in headers]
    _, row[_HEADERS], row[_ANSWER] = redactor.message("", pairs, row[_ANSWER], whole=not row[_CUT])
    if row[_LEARNED]:
        after = (row[_HEAD], row[_BODY], row[_HEADERS], row[_ANSWER])
        row[_LEARNED] = [(name, _learned(value, before, after, key)) for name, value in row[_LEARNED]]
    return row


def _request(head: bytes, body: bytes | None, redactor: Redactor) -> tuple[bytes, bytes | None]:
    first, _, _ = head.decode("latin-1").partition("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.rpartition(" ")
    target, headers, body = redactor.message(target, list(split_head(head)), body)
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace"), body


def _learned(value: str, before: Sequence[Any], after: Sequence[Any], key: bytes) -> str:
    """A live value as it stands in the redacted row: its pseudonym, where it was found to be a secret."""
    if _stands_in(value, before) and not _stands_in(value, after):
        return pseudonym(value, key)
    return value


def _stands_in(value: str, parts: Sequence[Any]) -> bool:
    raw = value.encode("utf-8", "replace")
    return any(
        raw in part if isinstance(part, bytes) else any(value in text for _, text in part)
        for part in parts
        if part is not None
    )
