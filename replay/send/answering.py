"""What the planner reads of recorded answers: all of those that hand out what is bound, of the others their text alone.

Most answers make nothing, and are only searched for values that are known. Arrow joins their texts by the batch; as
Python objects, their headers would cost more than everything else that is done about them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from replay.store.reader import to_rows

COLUMNS = ("status", "response_headers", "response_body")

Read = tuple[tuple[Any, ...], bytes | None]
"""Status, headers and body, and the text of what is not read in full (see `replay.plan.answers.text_of`)."""


def answers(batch: pa.RecordBatch, makers: Collection[str]) -> Iterator[Read]:
    """The answers of a batch with `endpoint` and `COLUMNS`; in full where the endpoint is one of `makers`."""
    headers, body = batch["response_headers"], batch["response_body"]
    # A content encoding is undone elsewhere.
    full = pc.or_(
        pc.is_in(batch["endpoint"], value_set=pa.array(list(makers), pa.string())), _encoded(headers)
    )
    told = pa.ListArray.from_arrays(headers.offsets, headers.values.field(1))
    joined = pc.binary_join(told, "\n").cast(pa.binary())
    searched = pc.if_else(full, pa.scalar(None, pa.binary()), pc.coalesce(body, b""))
    texts = pc.binary_join_element_wise(pc.coalesce(joined, b""), searched, b"\n").to_pylist()
    whole = to_rows(batch.select(COLUMNS).filter(full))
    for text, status in zip(texts, batch["status"].to_pylist(), strict=True):
        yield ((status, (), None), text) if text is not None else (next(whole), None)


def _encoded(headers: pa.ListArray) -> pa.BooleanArray:
    """Which answers name a content encoding."""
    names = pc.ascii_lower(headers.flatten().field(0))
    rows = pc.list_parent_indices(headers).filter(pc.equal(names, "content-encoding"))
    return pc.is_in(pa.array(range(len(headers)), rows.type), value_set=rows)
