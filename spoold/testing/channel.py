"""Connections in memory: one end is a ``transport.channel.MessageChannel``, the other one a client's."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from transport.channel import ChannelClosed
from transport.connection import Gateway, serve_connection
from transport.framing import TooLong
from transport.listen import Listeners


class MemoryChannel:
    """Both ends of one connection.

    Attributes:
        reading: cleared and set by the client's end: while it is not set, nothing can be sent to it.
        closed: code and reason, once the daemon has ended the connection.
        broken: the daemon was cut off in the middle of sending.
        ended: set when the connection has ended.
    """

    def __init__(
        self, name: str = "memory", *, stdio: bool = False, sent: Callable[[bytes], None] | None = None
    ) -> None:
        self.name = name
        self.waits_for_reader = stdio
        self.reading = trio.Event()
        self.reading.set()
        self.closed: tuple[int, str] | None = None
        self.broken = False
        self.ended = trio.Event()
        self._to_server, self._incoming = trio.open_memory_channel[bytes | TooLong](math.inf)
        self._outgoing, self._from_server = trio.open_memory_channel[bytes](math.inf)
        self._sent = sent
        self._cut = False

    # -- the daemon's end: see ``transport.channel.MessageChannel`` ---------------------------------------

    async def receive(self) -> bytes | TooLong | None:
        """The next message of the client; None when it has hung up."""
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            return None

    async def send_many(self, messages: list[bytes]) -> None:
        """Wait until the client reads, then send."""
        try:
            await self.reading.wait()
            for message in messages:
                if self._cut:
                    raise ChannelClosed
                await self._outgoing.send(message)
                if self._sent is not None:
                    self._sent(message)
        except trio.BrokenResourceError:
            raise ChannelClosed from None
        except trio.Cancelled:
            self.broken = True
            raise

    async def aclose(self, code: int, reason: str) -> None:
        """The daemon ends the connection."""
        self.closed = self.closed or (code, reason)
        self._outgoing.close()
        self.ended.set()

    def cut(self) -> None:
        """The daemon's process is gone: nothing it still says arrives."""
        self._cut = True
        self.closed = self.closed or (1006, "the process is gone")
        self._outgoing.close()
        self.ended.set()

    # -- the client's end -------------------------------------------------------------------------------

    def raw(self, data: bytes | TooLong) -> None:
        """Send to the daemon. Nothing waits.

        Raises:
            trio.ClosedResourceError: ``hang_up`` was called.
        """
        self._to_server.send_nowait(data)

    async def receive_sent(self) -> bytes:
        """The next message of the daemon.

        Raises:
            trio.EndOfChannel: there is no more.
        """
        return await self._from_server.receive()

    def nothing_waits(self) -> bool:
        """Whether the client has taken everything that was sent."""
        return self._from_server.statistics().current_buffer_used == 0

    def hang_up(self) -> None:
        """The client ends its sending half; what it has sent will be read first."""
        self._to_server.close()

    def vanish(self, *, lose: bool = False) -> None:
        """The client is gone, both ways. ``lose``: what it has sent and nobody has read is lost with it."""
        self._to_server.close()
        self._from_server.close()
        self.reading.set()
        while lose:
            try:
                self._incoming.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def stop_reading(self) -> None:
        """From now on nothing arrives; it waits in the daemon."""
        if self.reading.is_set():
            self.reading = trio.Event()

    def go_on_reading(self) -> None:
        """What waits may come."""
        self.reading.set()


class MemoryListeners(Listeners):
    """Listeners that clients of the same process connect to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = ["memory://"]
        self._connections: trio.Nursery | None = None

    async def serve(
        self, gateway: Gateway, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See ``Listeners.serve``."""
        self._gateway = gateway
        async with trio.open_nursery() as self._connections:
            task_status.started()
            await self._closing.wait()
        self._connections = None

    def take(self, channel: MemoryChannel) -> None:
        """Serve a new connection.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        if self._connections is None or self._gateway is None or self._closing.is_set():
            raise ConnectionRefusedError("nobody listens")
        self._connections.start_soon(serve_connection, channel, self._gateway)
