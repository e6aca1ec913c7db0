"""The shop at its socket: HTTP/1.1 on asyncio streams, around the pure core in `answers`.

    python -m replay.demo.shop --port 0 --build old

prints the port it listens on as its first line, serves until SIGTERM or SIGINT, and exits with 0.
`--trust-tokens` is for staging: see `answers.Shop`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from random import Random

from replay.demo.answers import Request, Response, Shop, handle
from replay.demo.builds import BUILDS

QUERY_SECONDS = 0.004
"""What one database query takes, give or take the jitter."""

JITTER = 0.25
COMPRESS_FROM = 1024
MAX_BODY = 1 << 20


class BadRequestError(Exception):
    """Bytes that are no HTTP/1.1 request this server can take."""


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request on a connection, or None when the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise BadRequestError("cut off in its head") from None
        return None
    except asyncio.LimitOverrunError:
        raise BadRequestError("head too long") from None
    method, target, headers = parse_head(head)
    return Request(method, target, headers, await _read_body(reader, headers))


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers (names in lower case) of a request's head."""
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = start.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError("no HTTP/1.1 request line")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError("a header without a colon")
        headers[name.lower()] = value.strip()
    return words[0], words[1], headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        raise BadRequestError("bodies must come with Content-Length")
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
        raise BadRequestError("bad Content-Length")
    try:
        return await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        raise BadRequestError("cut off in its body") from None


def to_wire(response: Response, *, compress: bool = False, close: bool = False) -> bytes:
    """The response as bytes, its body compressed where that pays and the client takes it."""
    headers, body = list(response.headers), response.body
    if compress and len(body) >= COMPRESS_FROM:
        # mtime=0: equal answers stay equal bytes.
        headers.append(("Content-Encoding", "gzip"))
        body = gzip.compress(body, compresslevel=6, mtime=0)
    headers += [("Content-Length", str(len(body))), ("Connection", "close" if close else "keep-alive")]
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Server:
    """Connections in, answers out; `query_seconds` is how long a database query takes."""

    def __init__(self, shop: Shop, query_seconds: float = QUERY_SECONDS) -> None:
        self._shop = shop
        self._query_seconds = query_seconds
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(
        self, host: str, port: int, stop: asyncio.Event, listening: Callable[[int], object]
    ) -> None:
        """Listen, tell `listening` the port, serve until `stop` is set, then end every connection."""
        server = await asyncio.start_server(self._accept, host, port)
        listening(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except ConnectionError:
            pass  # the client has gone
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tells whether the connection stays open."""
        try:
            request = await read_request(reader)
        except BadRequestError as error:
            text = Response(400, (("Content-Type", "text/plain"),), f"{error}\n".encode())
            writer.write(to_wire(text, close=True))
            await writer.drain()
            return False
        if request is None:
            return False
        close = request.headers.get("connection", "").lower() == "close"
        response = handle(request, self._shop, time.time())
        await self._take_as_long_as(response.queries)
        compress = "gzip" in request.headers.get("accept-encoding", "")
        writer.write(to_wire(response, compress=compress, close=close))
        await writer.drain()
        return not close

    async def _take_as_long_as(self, queries: int) -> None:
        if queries:
            await asyncio.sleep(queries * self._query_seconds * (1 + self._shop.random.uniform(0, JITTER)))


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if options.until_eof:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _stop_at_eof, stop)
    build = BUILDS[options.build]()
    shop = Shop(build, Random(options.seed), trust_tokens=options.trust_tokens, started=time.time())
    await Server(shop).serve(options.host, options.port, stop, _say_port)


def _stop_at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def _say_port(port: int) -> None:
    print(port, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one build of the shop, as the options say."""
    parser = argparse.ArgumentParser(prog="python -m replay.demo.shop", description="A shop to record.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--build", choices=sorted(BUILDS), default="old")
    parser.add_argument("--trust-tokens", action="store_true", help="any token opens a session (for staging)")
    parser.add_argument("--until-eof", action="store_true", help="stop at the end of standard input, too")
    parser.add_argument("--seed", type=int, help="for the noise; left out, it is different in every run")
    asyncio.run(_main(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
