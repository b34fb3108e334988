"""A websocket client that costs next to nothing: it keeps bytes and looks at them later, or not at all.

For tests that measure the daemon: decoding what comes would be most of the work.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

Json = dict[str, Any]
_READ = 256 * 1024


class RawClient:
    """Attributes: ``received``, all bytes since the connection was upgraded."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.received = bytearray()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message in a frame of its own."""
        data = json.dumps(message).encode()
        await self._stream.send_all(_frame(0x1, data))

    async def send_many(self, messages: list[Json]) -> None:
        """Send messages in one go."""
        await self._stream.send_all(b"".join(_frame(0x1, json.dumps(each).encode()) for each in messages))

    async def until(self, marker: bytes, count: int = 1, *, since: int = 0) -> None:
        """Read until ``marker`` has come ``count`` times after the offset ``since``."""
        seen = self.received.count(marker, since)
        while seen < count:
            if not await self._read():
                raise AssertionError("the connection ended")
            # A marker may be cut by the end of what was read before.
            seen = (
                self.received.count(marker, since)
                if len(self.received) - since < 65_536
                else self._more(marker, seen)
            )

    def _more(self, marker: bytes, seen: int) -> int:
        start = max(0, self._before - len(marker) + 1)
        return seen + self.received.count(marker, start)

    async def to_the_end(self) -> None:
        """Read until the other side closes; a close frame is answered with the same."""
        answered = False
        while await self._read():
            if not answered and self.close_code() is not None:
                answered = True
                await self._stream.send_all(_frame(0x8, (self.close_code() or 1000).to_bytes(2, "big")))

    async def _read(self) -> bool:
        self._before = len(self.received)
        try:
            data = await self._stream.receive_some(_READ)
        except trio.BrokenResourceError:
            return False
        self.received += data
        return bool(data)

    def messages(self) -> Iterator[Json]:
        """All whole text messages that have come."""
        for opcode, payload in self.frames():
            if opcode in (0x0, 0x1):
                yield json.loads(payload)

    def close_code(self) -> int | None:
        """The code of the close frame, if one has come."""
        for opcode, payload in self.frames():
            if opcode == 0x8:
                return int.from_bytes(payload[:2], "big")
        return None

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of every whole frame; a message is never split by this daemon."""
        data, position = self.received, 0
        while position + 2 <= len(data):
            opcode, size = data[position] & 0x0F, data[position + 1] & 0x7F
            position += 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size = int.from_bytes(data[position : position + width], "big")
                position += width
            if position + size > len(data):
                return
            yield opcode, bytes(data[position : position + size])
            position += size


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload  # a mask of zeros changes nothing


@asynccontextmanager
async def connect_raw(
    url: str, name: str = "raw", *, receive_buffer: int | None = None
) -> AsyncGenerator[RawClient, None]:
    """Connect and shake hands. ``receive_buffer``: bytes the kernel keeps for who does not read."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect((parts.hostname, parts.port))
    async with trio.SocketStream(sock) as stream:
        key = os.urandom(16).hex()[:22] + "=="
        await stream.send_all(
            f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        client = RawClient(stream)
        head = bytearray()
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some(4096)
            assert data, bytes(head)
            head += data
        assert b" 101 " in head.split(b"\r\n")[0], bytes(head)
        client.received += head.split(b"\r\n\r\n", 1)[1]
        info = {"clientInfo": {"name": name, "version": "1"}, "capabilities": {"experimentalApi": True}}
        await client.send({"id": 0, "method": "initialize", "params": info})
        await client.until(b'"id":0')
        await client.send({"method": "initialized"})
        yield client
