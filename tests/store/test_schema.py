"""The schema on disk and the nouns in memory are one thing said twice: they must agree."""

from __future__ import annotations

from dataclasses import fields

import pyarrow as pa
import pytest

from replay.model import Exchange, Result
from replay.store.schema import DICTIONARY_COLUMNS, EXCHANGES, KINDS, RESULTS, TIME_KEY, UNCOUNTED_COLUMNS

TYPES = {
    "str": pa.string(),
    "int": (pa.int64(), pa.int32(), pa.int16(), pa.timestamp("ns", tz="UTC")),
    "bool": pa.bool_(),
    "bytes": pa.binary(),
    "float": pa.float64(),
    "tuple[Header, ...]": pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())])),
}


@pytest.mark.parametrize(("noun", "schema"), [(Exchange, EXCHANGES), (Result, RESULTS)])
def test_columns_are_the_fields_in_order(noun: type, schema: pa.Schema) -> None:
    assert [field.name for field in fields(noun)] == schema.names


@pytest.mark.parametrize(("noun", "schema"), [(Exchange, EXCHANGES), (Result, RESULTS)])
def test_types_and_nulls_agree(noun: type, schema: pa.Schema) -> None:
    for field in fields(noun):
        name, optional, _ = str(field.type).partition(" | None")
        expected = TYPES[name]
        column = schema.field(field.name)
        assert column.type in (expected if isinstance(expected, tuple) else (expected,)), field.name
        assert column.nullable == bool(optional), field.name


def test_named_columns_exist() -> None:
    every = {name for schema in KINDS.values() for name in schema.names}
    assert {name.split(".")[0] for name in DICTIONARY_COLUMNS} <= every
    assert set(UNCOUNTED_COLUMNS) <= every
    assert all(TIME_KEY[kind] in schema.names for kind, schema in KINDS.items())
