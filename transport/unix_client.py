"""The client's end of a websocket over a unix socket, for a process of ours that passes messages on.

A page of its own and not the library: it must cost no start-up time, pass on what it reads as the bytes they
are, and hold no more than one message. It can leave out what only matters between strangers: the masking key
is zero (it guards proxies against web pages), the answer to the handshake is known by a header of ours, and
a ping need not be answered, because a spoold does not ping whom it waits for.

Sans I/O inside: ``FrameReader`` turns bytes into messages, ``LocalWebSocket`` moves them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import trio

from transport.framing import MAX_MESSAGE_BYTES
from transport.unix import connect_unix, listener_pid

ATTACHED_HEADER = "x-spoold-attached"
"""Request header: the client stands for another one on standard streams, which is to be waited for. Its value
is the folder where that one was started, percent-encoded."""
VERSION_HEADER = "x-spoold-version"
"""Response header: the listener is a spoold, and which one."""

HANDSHAKE_TIMEOUT = 10.0
MAX_HEAD_BYTES = 16 * 1024
RECEIVE_BYTES = 64 * 1024
LONGEST_FRAME = 16 * MAX_MESSAGE_BYTES
"""Beyond what any answer can be: the stream is damaged."""

_CONTINUATION, _TEXT, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x8, 0x9, 0xA
_CLOSE_NORMAL = (1000).to_bytes(2, "big")

_UPGRADE = (
    b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3Bvb2xkLWF0dGFjaGVkIQ==\r\n"
    + ATTACHED_HEADER.encode()
    + b": %s\r\n\r\n"
)


class NotOurs(Exception):
    """What listens there is no spoold.

    Attributes:
        pid: the process, 0 where we cannot see it.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} listens there and is no spoold")
        self.pid = pid


class Damaged(Exception):
    """The bytes are no websocket frames of a server."""


class FrameReader:
    """Cuts what a server sends into frames, and joins the frames of a message.

    Holds no more than one message and what came with it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Invariant: the frames so far of a message whose last frame has not come; empty otherwise.
        self._message = bytearray()

    def feed(self, data: bytes | bytearray) -> list[tuple[int, bytes]]:
        """Take bytes as they arrived; give what they complete: (opcode, payload), text messages whole.

        Raises:
            Damaged: no further byte can be understood.
        """
        self._buffer += data
        complete: list[tuple[int, bytes]] = []
        position = 0
        while (frame := self._frame(position)) is not None:
            final, opcode, start, end = frame
            position = end
            with memoryview(self._buffer) as view:
                payload = bytes(view[start:end])
            if opcode >= _CLOSE:
                complete.append((opcode, payload))
            elif final and not self._message:
                complete.append((_TEXT, payload))
            else:
                self._message += payload
                if len(self._message) > LONGEST_FRAME:
                    raise Damaged
                if final:
                    complete.append((_TEXT, bytes(self._message)))
                    self._message = bytearray()
        del self._buffer[:position]
        return complete

    def _frame(self, position: int) -> tuple[bool, int, int, int] | None:
        """Final, opcode, and where the payload lies; None while a part of it is missing."""
        buffer = self._buffer
        if len(buffer) < position + 2:
            return None
        first, code = buffer[position], buffer[position + 1]
        opcode = first & 0x0F
        if first & 0x70 or code & 0x80 or opcode not in (_CONTINUATION, _TEXT, _CLOSE, _PING, _PONG):
            raise Damaged
        start = position + 2
        length = code
        if code >= 126:
            wide = 2 if code == 126 else 8
            if len(buffer) < start + wide:
                return None
            length = int.from_bytes(buffer[start : start + wide], "big")
            start += wide
        if length > LONGEST_FRAME:
            raise Damaged
        if len(buffer) < start + length:
            return None
        return bool(first & 0x80), opcode, start, start + length


def client_frame(opcode: int, payload: bytes) -> bytes:
    """One masked frame; the zero key leaves the payload as it is."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 1 << 16:
        head = bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + length.to_bytes(8, "big")
    return b"".join((head, b"\0\0\0\0", payload))


class LocalWebSocket:
    """A connection to a spoold. One task sends, one receives.

    Attributes:
        pid: the process at the other end, 0 where we cannot see it.
    """

    def __init__(self, stream: trio.SocketStream, rest: bytes) -> None:
        self.pid = listener_pid(stream)
        self._stream = stream
        self._frames = FrameReader()
        self._rest = rest

    async def send(self, message: bytes) -> None:
        """Send one text message, which is valid UTF-8. Cancelled in the middle, the connection is broken.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the other end is gone.
        """
        await self._stream.send_all(client_frame(_TEXT, message))

    async def receive(self) -> list[bytes]:
        """The next messages, at least one; none at all once the connection has ended, for any reason."""
        try:
            while True:
                data = self._rest or await self._stream.receive_some(RECEIVE_BYTES)
                self._rest = b""
                if not data:
                    return []
                messages: list[bytes] = []
                for opcode, payload in self._frames.feed(data):
                    if opcode == _TEXT:
                        messages.append(payload)
                    elif opcode == _CLOSE:
                        # What came before it counts; the next call finds the end of the stream.
                        await trio.aclose_forcefully(self._stream)
                        return messages
                if messages:
                    return messages
        except (trio.BrokenResourceError, trio.ClosedResourceError, Damaged):
            return []

    async def aclose(self) -> None:
        """Say goodbye where there is room for it, and close."""
        with trio.move_on_after(0.1), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(client_frame(_CLOSE, _CLOSE_NORMAL))
        await trio.aclose_forcefully(self._stream)


def attached_from(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The folder of the client that a client stands for; None for a client that speaks for itself."""
    from urllib.parse import unquote_to_bytes

    name = ATTACHED_HEADER.encode()
    return next((os.fsdecode(unquote_to_bytes(value)) for key, value in headers if key.lower() == name), None)


async def connect_spoold(path: Path, folder: str) -> LocalWebSocket:
    """Connect to the spoold that listens at ``path``.

    Args:
        path: its control socket.
        folder: where the client was started for whom we pass messages on.

    Raises:
        OSError: nobody listens there, it ended before it answered, or it does not answer in time.
        NotOurs: another program listens there.
    """
    from urllib.parse import quote

    stream = await connect_unix(path)
    try:
        pid = listener_pid(stream)
        with trio.move_on_after(HANDSHAKE_TIMEOUT):
            await stream.send_all(_UPGRADE % quote(os.fsencode(folder)).encode())
            received = bytearray()
            while (end := received.find(b"\r\n\r\n")) < 0:
                data = await stream.receive_some(RECEIVE_BYTES)
                if not data or len(received) > MAX_HEAD_BYTES:
                    raise ConnectionResetError(errno.ECONNRESET, "it closed the connection", str(path))
                received += data
            if not _is_ours(bytes(received[:end])):
                raise NotOurs(pid)
            return LocalWebSocket(stream, bytes(received[end + 4 :]))
        raise TimeoutError(errno.ETIMEDOUT, "it does not answer", str(path))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(stream)
        raise ConnectionResetError(errno.ECONNRESET, "it closed the connection", str(path)) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


def _is_ours(head: bytes) -> bool:
    status, *headers = head.split(b"\r\n")
    names = {header.split(b":", 1)[0].strip().lower() for header in headers}
    return status.split(b" ")[1:2] == [b"101"] and VERSION_HEADER.encode() in names
