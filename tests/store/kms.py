"""A key management service for tests, spoken to as `pyarrow.parquet.encryption.KmsClient` is."""

from __future__ import annotations

import base64


class Client:
    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(f"{master_key_identifier}:".encode() + key_bytes[::-1])

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key).removeprefix(f"{master_key_identifier}:".encode())[::-1]
