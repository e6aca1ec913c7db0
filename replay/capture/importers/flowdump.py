"""mitmproxy's flow dumps, of every version its own reader knows.

A dump that ends in the middle of a flow, as after a crash, gives all the flows before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mitmproxy.flow import Flow
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from replay.capture.flows import to_exchange
from replay.capture.importers import Item, Note, NotTaken, digest_of, name_of, open_plain, salt_of
from replay.errors import InputError
from replay.model import exchange_id


def read(path: Path) -> Iterator[Item]:
    """The exchanges of a dump; `InputError` where there is no flow at all in it."""
    digest = digest_of(path)
    found = 0
    with open_plain(path) as file:
        flows = iter(FlowReader(file).stream())
        while True:
            try:
                flow = next(flows, None)
            except Exception as error:
                # Its reader raises whatever damaged data happens to break: all of it means the same here.
                if not found:
                    raise InputError(f"{path} cannot be read as a flow dump: {_line(error)}") from None
                yield NotTaken("damaged from here to the end of the file")
                return
            if flow is None:
                break
            yield from _items(flow, digest, found)
            found += 1
    if not found:
        raise InputError(f"{path} holds no flow: record one with mitmdump -w FILE")


def _items(flow: Flow, digest: bytes, index: int) -> Iterator[Item]:
    if not isinstance(flow, HTTPFlow):
        yield NotTaken(f"{flow.type} connection")
        return
    if flow.request.method == "CONNECT":
        yield NotTaken("CONNECT tunnel")
        return
    if not flow.request.timestamp_start:
        yield NotTaken("no time recorded")
        return
    yield from _notes(flow)
    client = flow.client_conn
    address = client.peername[0] if client.peername else ""
    yield to_exchange(
        flow,
        exchange_id=exchange_id(int(flow.request.timestamp_start * 1e9), salt_of(digest, index)),
        session_id=name_of(digest, "session", address, flow.request.headers.get("user-agent", "")),
        # Not the id in the dump: converting an old one makes it up anew at each reading.
        connection_id=name_of(digest, "connection", client.peername, client.timestamp_start),
    )


def _notes(flow: HTTPFlow) -> Iterator[Note]:
    if flow.websocket:
        yield Note("WebSocket messages left out, the handshake taken")
    if flow.request.raw_content is None:
        yield Note("request body not in the file")
    if flow.response and flow.response.raw_content is None:
        yield Note("response body not in the file")
    if flow.request.trailers or (flow.response and flow.response.trailers):
        yield Note("trailers left out")
    if flow.response and not flow.response.timestamp_end and not flow.error:
        yield Note("end of the answer not in the file")
    if not flow.response and not flow.error:
        yield Note("answer not in the file")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
