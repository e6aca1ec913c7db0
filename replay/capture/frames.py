"""What the proxy tells the recorder: one msgpack array per exchange, one map per word about the books.

An exchange's frame holds the values of `replay.model.Exchange` in field order, as raw as they come: text as
bytes, the client's address in place of the session, nothing in place of id and endpoint. It is the recorder
that makes a row of it. The names below are the places that both sides touch.
"""

from __future__ import annotations

from dataclasses import fields

from replay.model import Exchange

_PLACES = {field.name: place for place, field in enumerate(fields(Exchange))}

EXCHANGE_ID = _PLACES["exchange_id"]
SESSION_ID = _PLACES["session_id"]
CONNECTION_ID = _PLACES["connection_id"]
STARTED_AT = _PLACES["started_at"]
METHOD = _PLACES["method"]
HOST = _PLACES["host"]
STATUS = _PLACES["status"]
TARGET = _PLACES["target"]
ENDPOINT = _PLACES["endpoint"]
TEXTS = tuple(_PLACES[name] for name in ("method", "scheme", "host", "target", "http_version"))
REQUEST_HEADERS = _PLACES["request_headers"]
RESPONSE_HEADERS = _PLACES["response_headers"]
REQUEST_BODY = _PLACES["request_body"]
RESPONSE_BODY = _PLACES["response_body"]
REQUEST_SIZE = _PLACES["request_size"]
RESPONSE_SIZE = _PLACES["response_size"]
TRUNCATED = _PLACES["truncated"]
SAMPLE_WEIGHT = _PLACES["sample_weight"]
