"""The client's end of a connection to a simulated daemon, for a client program of one's own.

What such a program has for a transport (a websocket, a child's standard streams) is replaced by this: whole
messages in, whole messages out.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from spoold.testing.channel import MemoryChannel


class Wire:
    """One connection. ``spoold.client.Client`` takes it as it is.

    Attributes:
        close_code: the websocket close code with which the daemon has ended it; None before, and without one.
    """

    def __init__(self, channel: MemoryChannel, said: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._said = said
        self._left = False

    @property
    def close_code(self) -> int | None:
        """See the class."""
        return None if self._channel.closed is None else self._channel.closed[0]

    async def send(self, data: bytes | str) -> None:
        """Send one message.

        Raises:
            trio.BrokenResourceError: the daemon has ended the connection.
            trio.ClosedResourceError: ``aclose`` was called.
        """
        await trio.lowlevel.checkpoint()
        if self._channel.ended.is_set() and not self._left:
            raise trio.BrokenResourceError("the daemon has ended the connection")
        data = data.encode() if isinstance(data, str) else data
        self._channel.raw(data)
        self._said(data)

    async def receive(self) -> bytes | None:
        """The next message; None when the connection has ended."""
        try:
            return await self._channel.receive_sent()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None

    async def aclose(self) -> None:
        """Go away without a word."""
        self._left = True
        self._channel.vanish()
        await trio.lowlevel.checkpoint()
