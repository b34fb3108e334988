"""One client on the standard streams, which started us.

Three traps shape this page. Non-blocking mode belongs to the open file, which we may share with the shell
or with our parent: it is put back at the end. Regular files and some devices cannot be polled: they are read
and written in threads. And anything in the process may print: while the protocol runs, descriptor 1 is
standard error and descriptor 0 is empty, and the protocol keeps private duplicates.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from transport.channel import ChannelClosed
from transport.framing import LineFramer, TooLong

READ_BYTES = 64 * 1024


class StdioChannel:
    """Lines over two file descriptors, which this object owns from now on.

    Args:
        in_fd: read from.
        out_fd: written to.
        framer: another limit than the default one, for tests.
    """

    def __init__(self, in_fd: int, out_fd: int, framer: LineFramer | None = None) -> None:
        self.name = "stdio"
        self.waits_for_reader = True
        self._modes = [(fd, os.get_blocking(fd)) for fd in (in_fd, out_fd)]
        self._in = _open(in_fd)
        self._out = _open(out_fd)
        self._framer = framer or LineFramer()
        # Invariant: messages already cut; no byte of a later message is before them.
        self._ready: deque[bytes | TooLong] = deque()
        self._ended = False

    async def receive(self) -> bytes | TooLong | None:
        """See ``MessageChannel.receive``."""
        while not self._ready:
            if self._ended:
                return None
            try:
                data = await self._in.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if data:
                self._ready.extend(self._framer.feed(bytes(data)))
            else:
                self._ended = True
                self._ready.extend(self._framer.finish())
        return self._ready.popleft()

    async def send_many(self, messages: list[bytes]) -> None:
        """See ``MessageChannel.send_many``."""
        try:
            await self._out.send_all(b"\n".join(messages) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ChannelClosed from error

    async def aclose(self, code: int, reason: str) -> None:
        """See ``MessageChannel.aclose``; there is no farewell on stdio."""
        for fd, blocking in self._modes:
            os.set_blocking(fd, blocking)
        await trio.aclose_forcefully(self._in)
        await trio.aclose_forcefully(self._out)


class _FileStream(trio.abc.Stream):
    """A descriptor that cannot be polled, read and written in threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        # A read that never ends must not hold up the end of the process.
        return await trio.to_thread.run_sync(
            os.read, self._fd, max_bytes or READ_BYTES, abandon_on_cancel=True
        )

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.to_thread.run_sync(self._write, data)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        await trio.lowlevel.checkpoint()


def _open(fd: int) -> trio.abc.Stream:
    with select.epoll() as poll:
        try:
            poll.register(fd, 0)
        except PermissionError:
            return _FileStream(fd)
    return trio.lowlevel.FdStream(fd)


@contextmanager
def standard_streams() -> Iterator[tuple[int, int]]:
    """Take descriptors 0 and 1 for the protocol; give them back afterwards.

    Yields:
        duplicates to read from and to write to; whoever takes them closes them.

    Raises:
        OSError: one of them is closed.
    """
    private = (os.dup(0), os.dup(1))
    saved = (os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield private
    finally:
        for fd, target in zip(saved, (0, 1), strict=True):
            os.dup2(fd, target)
            os.close(fd)
