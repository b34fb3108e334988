"""The stream under a websocket: a byte stream whose head was already read.

Three things the websocket library does not do are done here, where every byte passes: the HTTP head that
the front has read is given again; several tasks may send whole frames, which are not mixed; a frame that
declares more than the limit breaks the connection before its payload arrives.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

SEND_CHUNK = 64 * 1024
LAST_WORDS_SECONDS = 1.0


class FrameGuard:
    """Follows the frame headers of one websocket direction without keeping any payload.

    Args:
        limit: the longest payload a frame may declare, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._header = bytearray()
        # Invariant: bytes of the current frame (mask and payload) that are still to come.
        self._skip = 0

    def accepts(self, data: bytes) -> bool:
        """Take the next bytes; False once a frame declares the limit or more."""
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
                continue
            self._header.append(data[position])
            position += 1
            if len(self._header) < 2:
                continue
            code = self._header[1] & 0x7F
            extended = {126: 2, 127: 8}.get(code, 0)
            if len(self._header) < 2 + extended:
                continue
            length = int.from_bytes(self._header[2:], "big") if extended else code
            if length >= self._limit:
                return False
            self._skip = length + (4 if self._header[1] & 0x80 else 0)
            self._header.clear()
        return True


class ReplayStream(trio.abc.Stream):
    """See the module. ``name`` is for log lines.

    Args:
        stream: the connection itself.
        head: what was read of it before: an HTTP request head and perhaps more.
        head_length: where in ``head`` the HTTP head ends and frames begin.
        frame_limit: bytes a frame may not reach.
    """

    def __init__(self, stream: trio.abc.Stream, head: bytes, head_length: int, frame_limit: int) -> None:
        self._stream = stream
        self._head = head
        self._head_length = head_length
        self._guard = FrameGuard(frame_limit)
        self._lock = trio.Lock()
        self.progress = 0
        """Grows with every chunk that moves in either direction."""
        self.last_words: Callable[[], bytes] = bytes
        """Asked for what is still to be sent when the stream is closed in good order."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Raises trio.BrokenResourceError for a frame that declares too much, besides the usual."""
        if self._head:
            data, self._head = self._head, b""
            frames = data[self._head_length :]
            await trio.lowlevel.checkpoint()
        else:
            data = frames = bytes(await self._stream.receive_some(max_bytes))
        self.progress += 1
        if not self._guard.accepts(frames):
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("a frame declares more than the limit")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Several tasks may send; their data is not mixed."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            await self._send(data)
        finally:
            self._lock.release()

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) <= SEND_CHUNK:
            await self._stream.send_all(data)
            self.progress += 1
            return
        view = memoryview(data)
        for start in range(0, len(view), SEND_CHUNK):
            await self._stream.send_all(view[start : start + SEND_CHUNK])
            self.progress += 1

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Send the last words, unless a frame is half sent or the client does not take them; then close."""
        try:
            words = self.last_words()
            if words and not self._lock.locked():
                with trio.move_on_after(LAST_WORDS_SECONDS):
                    await self._stream.send_all(words)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await self._stream.aclose()
