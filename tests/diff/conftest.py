"""Answers for the tests of this room: a plain 200 with a JSON body, but for what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from replay.diff.answers import Answer

MakeAnswer = Callable[..., Answer]


@pytest.fixture(scope="session")
def answer() -> MakeAnswer:
    return make_answer


def make_answer(number: int = 0, body: Any = None, **given: Any) -> Answer:
    """Exchange `number` answered with `body` (bytes as they are, other values as JSON)."""
    content = body if isinstance(body, bytes) else orjson.dumps({"ok": True} if body is None else body)
    columns = {
        "exchange_id": f"{number:08d}",
        "lap": 0,
        "session_id": f"s{number % 40}",
        "endpoint": "GET /x",
        "status": 200,
        "response_headers": (("Content-Type", "application/json"),),
        "response_body": content,
        "response_size": len(content or b""),
        "truncated": False,
        "error": None,
        "skipped": None,
        "due_ns": number * 1_000_000,
        "sent_ns": number * 1_000_000,
        "duration_ns": 5_000_000,
    }
    return Answer(**{**columns, **given})
