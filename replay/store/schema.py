"""The Parquet schema: the one place that says what a dataset looks like on disk.

It is a public contract: people query these files with DuckDB, pandas and Polars. `SCHEMA_VERSION` counts
changes that an older reader would misread; added columns do not count.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

HEADERS = pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("value", pa.string())]))

EXCHANGES = pa.schema(
    [
        pa.field("exchange_id", pa.string(), nullable=False),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("connection_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("request_ns", pa.int64()),
        pa.field("ttfb_ns", pa.int64()),
        pa.field("duration_ns", pa.int64()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("scheme", pa.string(), nullable=False),
        pa.field("host", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("http_version", pa.string(), nullable=False),
        pa.field("request_headers", HEADERS, nullable=False),
        pa.field("response_headers", HEADERS, nullable=False),
        pa.field("request_body", pa.binary()),
        pa.field("response_body", pa.binary()),
        pa.field("request_size", pa.int64(), nullable=False),
        pa.field("response_size", pa.int64(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("status", pa.int16()),
        pa.field("error", pa.string()),
        pa.field("sample_weight", pa.float64(), nullable=False),
    ]
)

RESULTS = pa.schema(
    [
        pa.field("exchange_id", pa.string(), nullable=False),
        pa.field("lap", pa.int32(), nullable=False),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("connection_id", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("due_ns", pa.int64(), nullable=False),
        pa.field("sent_ns", pa.int64()),
        pa.field("held_ns", pa.int64(), nullable=False),
        pa.field("connect_ns", pa.int64()),
        pa.field("tls_ns", pa.int64()),
        pa.field("ttfb_ns", pa.int64()),
        pa.field("duration_ns", pa.int64()),
        pa.field("reused", pa.bool_(), nullable=False),
        pa.field("exact", pa.bool_(), nullable=False),
        pa.field("sent_head", pa.binary()),
        pa.field("sent_body", pa.binary()),
        pa.field("status", pa.int16()),
        pa.field("response_headers", HEADERS, nullable=False),
        pa.field("response_body", pa.binary()),
        pa.field("response_size", pa.int64(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("skipped", pa.string()),
        pa.field("learned", HEADERS),
        pa.field("unbound", pa.string()),
    ]
)

KINDS = {"capture": EXCHANGES, "run": RESULTS}
"""Dataset kind → schema; `<kind>.json` beside the part files holds the metadata."""

TIME_KEY = {"capture": "started_at", "run": "due_ns"}
"""Dataset kind → the column its part files are sorted by."""

DICTIONARY_COLUMNS = (
    "session_id",
    "connection_id",
    "method",
    "scheme",
    "host",
    "endpoint",
    "http_version",
    "request_headers.list.element.name",
    "response_headers.list.element.name",
    "error",
    "skipped",
)
"""Columns with few distinct values; bodies and ids stay plain, where a dictionary only costs."""

UNCOUNTED_COLUMNS = ("request_body", "response_body", "sent_head", "sent_body")
"""Columns without statistics: the extremes of a body tell nobody anything and take room in every footer."""
