"""The shop at its socket: HTTP/1.1 as a client sees it, and as a process that a parent starts and ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from replay.demo.answers import Response
from replay.demo.builds import NewBuild, OldBuild
from replay.demo.shop import BadRequestError, parse_head, to_wire

ServeAnd = Callable[..., Any]


def exchange(data: bytes, *, pieces: int = 1) -> Callable[[int], Any]:
    """A client that sends `data` in so many pieces, and reads until the server closes."""

    async def client(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in range(pieces):
            writer.write(data[piece * len(data) // pieces : (piece + 1) * len(data) // pieces])
            await writer.drain()
            await asyncio.sleep(0)
        found = await reader.read()
        writer.close()
        await writer.wait_closed()
        return found

    return client


@pytest.mark.parametrize("pieces", [1, 2, 60])
def test_a_connection_carries_many_requests(serve_and: ServeAnd, pieces: int) -> None:
    form = b'{"user": "ada", "password": "x"}'
    data = (
        b"GET /products/1001 HTTP/1.1\r\nHost: shop\r\n\r\n"
        b"POST /login HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n%s"
        b"GET /products/9999 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
    ) % (len(form), form)
    answer = serve_and(OldBuild, exchange(data, pieces=pieces))
    statuses = [part.split(b" ", 1)[0] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"404"]
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /login HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /login HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST /login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(serve_and: ServeAnd, data: bytes) -> None:
    assert serve_and(OldBuild, exchange(data)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_stopping_ends_idle_connections(serve_and: ServeAnd) -> None:
    async def client(port: int) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        asyncio.get_running_loop().call_soon(writer.close)
        return reader

    assert serve_and(NewBuild, client)


def test_large_answers_are_compressed_for_those_who_ask() -> None:
    response = Response(200, (("Content-Type", "text/plain"),), b"x" * 5000)
    plain, small = to_wire(response), to_wire(response, compress=True)
    head, _, body = small.partition(b"\r\n\r\n")
    assert plain.endswith(b"x" * 5000)
    assert b"Content-Encoding: gzip" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert gzip.decompress(body) == response.body
    assert small == to_wire(response, compress=True)


def test_a_head_is_parsed() -> None:
    method, target, headers = parse_head(b"GET /a%2fb?c=d HTTP/1.1\r\nHOST: shop\r\nX:  y \r\n\r\n")
    assert (method, target, headers) == ("GET", "/a%2fb?c=d", {"host": "shop", "x": "y"})
    with pytest.raises(BadRequestError):
        parse_head(b"\r\n\r\n")


@pytest.fixture
def shop_process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "replay.demo.shop", "--port", "0", "--build", "new", "--trust-tokens"]
    process = subprocess.Popen(
        [*command, "--until-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None])
def test_as_a_process_it_says_its_port_and_ends_cleanly(
    shop_process: subprocess.Popen[str], number: signal.Signals | None
) -> None:
    assert shop_process.stdin is not None
    assert shop_process.stdout is not None
    port = int(shop_process.stdout.readline())
    with urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        assert json.load(answer)["status"] == "ok"
    if number is None:
        shop_process.stdin.close()  # its parent has gone
    else:
        shop_process.send_signal(number)
    assert shop_process.wait(timeout=10) == 0
