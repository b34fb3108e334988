"""Clients on real sockets."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket

from tests.transport.fakes import INITIALIZE


async def http(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Send raw bytes, read to the end; the status line and the body."""
    with trio.fail_after(30):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(request)
            answer = b""
            try:
                while data := await stream.receive_some():
                    answer += data
            except trio.BrokenResourceError:
                pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n", 1)[0], body


def upgrade_request(*headers: bytes, path: bytes = b"/any/path") -> bytes:
    lines = [
        b"GET " + path + b" HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: keep-alive, Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def text_frame(text: bytes, *, declared: int | None = None) -> bytes:
    """A masked text frame, perhaps declaring another length than it has."""
    length = len(text) if declared is None else declared
    mask = b"\0\0\0\0"
    if length < 126:
        head = struct.pack("!BB", 0x81, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, length)
    return head + mask + text


async def raw_upgrade(stream: trio.abc.Stream, *headers: bytes) -> bytes:
    """Upgrade on a bare stream; gives the bytes that came after the 101."""
    await stream.send_all(upgrade_request(*headers))
    answer = b""
    with trio.fail_after(30):
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive_some()
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return rest


class Client:
    """A websocket client that speaks the protocol."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket

    async def message(self) -> dict[str, Any]:
        with trio.fail_after(30):
            return json.loads(await self.socket.get_message())

    async def call(self, method: str, params: Any = None, request_id: Any = 1) -> dict[str, Any]:
        await self.socket.send_message(json.dumps({"id": request_id, "method": method, "params": params}))
        return await self.message()


@asynccontextmanager
async def client(port: int, *headers: tuple[bytes, bytes]) -> AsyncIterator[Client]:
    """Connected and initialised."""
    async with open_websocket(
        "127.0.0.1",
        port,
        "/",
        use_ssl=False,
        extra_headers=list(headers),
        max_message_size=1 << 30,
    ) as socket:
        result = Client(socket)
        try:
            await result.call("initialize", INITIALIZE)
            yield result
        finally:
            # The library's client leaves its socket open when the server closes first.
            with trio.CancelScope(shield=True):
                await socket.aclose()
                await socket._stream.aclose()


def pipe_pair() -> tuple[int, int, int, int]:
    """(server reads, client writes, client reads, server writes)."""
    server_in, client_out = os.pipe()
    client_in, server_out = os.pipe()
    return server_in, client_out, client_in, server_out
