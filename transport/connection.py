"""One client: its outbox, its handshake state, and the two tasks that read and write.

Rules:

1. One task receives and starts requests in arrival order; one task owns all sends. What happens between
   them is synchronous.
2. ``deliver`` and ``answer`` only put into the outbox. Before the handshake only answers are put.
3. The policy for a client that does not read is decided here: stdio is waited for (no further request is
   read while the outbox is over its limit), everybody else is closed with 4008, after a grace period or
   at once when the backlog doubles the limit.
4. A daemon may greet its clients before it can serve them: until the gateway is opened the handshake is
   answered, and every other message waits, with those behind it, where the connection reads.
5. The end has many causes (the client left, the daemon closes, the client does not read) and one place:
   ``serve_connection``'s clean-up, which tells the daemon exactly once.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from actors.peer import Outgoing
from protocol.jsonrpc import Malformed, Message, Request, parse
from transport import router
from transport.channel import ChannelClosed, MessageChannel
from transport.daemon import Daemon
from transport.framing import TooLong
from transport.handshake import GREETING
from transport.method import MethodTable
from transport.outbox import DEFAULT_LIMIT, MERGE_ABOVE, Outbox

log = logging.getLogger(__name__)

CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_TOO_SLOW = 4008
"""The websocket close code for a client that let its outbox fill."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of every connection; bytes and seconds.

    Attributes:
        outbox_bytes: what may wait for one client.
        outbox_grace: how long more than that may wait.
        merge_above: while more than this waits for one client, its deltas become fewer and longer.
        in_flight: requests of one connection that are not answered yet.
        closing: how long an orderly end may take before it becomes a forceful one.
    """

    outbox_bytes: int = DEFAULT_LIMIT
    outbox_grace: float = 10.0
    merge_above: int = MERGE_ABOVE
    in_flight: int = 1024
    closing: float = 5.0


@dataclass(slots=True)
class Gateway:
    """What all connections of one daemon share.

    Attributes:
        daemon: whom the requests are for.
        methods: the method table; ``GREETING`` until ``open`` brings the rest.
        limits: the bounds of each connection.
        connections: the open ones, in the order they came.
        closing: whether ``close_all`` was called: who comes now is sent away at once.
        ids: where the connections' ids come from.
        departures: who waits for a connection to end is parked here.
    """

    daemon: Daemon
    methods: MethodTable
    limits: Limits = field(default_factory=Limits)
    connections: dict[int, Connection] = field(default_factory=dict)
    closing: bool = False
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    departures: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _opened: trio.Event = field(default_factory=trio.Event)

    def open(self, daemon: Daemon, methods: MethodTable) -> None:
        """Let in what waits behind the handshakes: here is whom it is for."""
        self.daemon = daemon
        self.methods = methods
        self._opened.set()

    async def admit(self, message: Message) -> None:
        """Wait until the message can be served."""
        if self.methods is GREETING and not (isinstance(message, Request) and message.method in GREETING):
            await self._opened.wait()

    async def deserted(self) -> None:
        """Wait until nobody is connected."""
        while self.connections:
            await self.departures.park()

    def close_all(self, code: int = CLOSE_GOING_AWAY, reason: str = "server is shutting down") -> None:
        """Begin the orderly end of every connection: what waits is sent, then the close frame."""
        self.closing = True
        for connection in list(self.connections.values()):
            connection.close(code, reason)


class Connection:
    """One connected client; implements ``actors.peer.Peer``.

    Attributes:
        id: unique in this daemon's life.
        client_name: ``clientInfo.name``; empty before the handshake.
        initialised: whether the handshake succeeded.
        experimental: whether the client has the ``experimentalApi`` capability.
        opted_out: notification methods the client does not want.
        in_flight: requests that are not answered yet.
        working_directory: where the client's paths begin, if not where the daemon's do.
    """

    def __init__(
        self,
        channel: MessageChannel,
        gateway: Gateway,
        nursery: trio.Nursery,
        working_directory: str | None = None,
    ) -> None:
        self.id = next(gateway.ids)
        self.client_name = ""
        self.initialised = False
        self.experimental = False
        self.opted_out: frozenset[str] = frozenset()
        self.in_flight = 0
        self.working_directory = working_directory
        self.gateway = gateway
        self.nursery = nursery
        self.outbox = Outbox(gateway.limits.outbox_bytes, gateway.limits.merge_above)
        # Invariant: set once, by the first cause of the end; later causes change nothing.
        self.end: tuple[int, str] | None = None
        self._channel = channel
        self._all_answered: trio.Event | None = None

    @property
    def name(self) -> str:
        """For log lines."""
        return f"{self.client_name or 'client'}#{self.id} ({self._channel.name})"

    def deliver(self, message: Outgoing) -> None:
        """See ``actors.peer.Peer.deliver``."""
        if not self.initialised or message.method in self.opted_out:
            return
        self.answer(message)

    def answer(self, message: Outgoing) -> None:
        """Queue an answer: goes out before the handshake, too."""
        if self.end is not None:
            return
        outbox = self.outbox
        outbox.put(message)
        if outbox.flooded and not self._channel.waits_for_reader:
            self._too_slow()

    async def watch_overflow(self) -> None:
        """Close the connection when its outbox stays over the limit for the grace period."""
        outbox = self.outbox
        while self.end is None:
            await outbox.wait_above_limit()
            with trio.move_on_after(self.gateway.limits.outbox_grace) as grace:
                await outbox.wait_below_limit()
            if grace.cancelled_caught:
                self._too_slow()

    def _too_slow(self) -> None:
        if self.end is None:
            log.warning(
                "closing %s: it does not read, %d bytes were waiting for it", self.name, self.outbox.backlog
            )
        self.close(CLOSE_TOO_SLOW, "client does not read", drop=True)

    def close(self, code: int, reason: str, *, drop: bool = False) -> None:
        """Begin the end: send what waits (or ``drop`` it), then a close frame.

        Returns at once; the end becomes forceful after ``Limits.closing`` seconds.
        """
        if self.end is not None:
            return
        self.end = (code, reason)
        self.outbox.finish(drop=drop)
        self.nursery.cancel_scope.deadline = trio.current_time() + self.gateway.limits.closing

    def answered(self) -> None:
        """One request got its answer; called by its reply slot."""
        self.in_flight -= 1
        if self.in_flight == 0 and self._all_answered is not None:
            self._all_answered.set()

    async def finish(self) -> None:
        """The client sends no more. One that only closed its sending half still gets its answers."""
        if self.end is None and self._channel.waits_for_reader:
            if self.in_flight:
                self._all_answered = trio.Event()
                with trio.move_on_after(self.gateway.limits.closing):
                    await self._all_answered.wait()
            self.close(CLOSE_NORMAL, "")
        if self.end is not None:
            # The writer sends what waits and then ends the connection; the deadline of close() bounds it.
            await trio.sleep_forever()

    async def read(self) -> None:
        """Receive and start requests until the client has no more."""
        channel, outbox = self._channel, self.outbox
        while (data := await channel.receive()) is not None:
            if self.end is not None:
                continue
            message = _read(data)
            await self.gateway.admit(message)
            started = router.dispatch(self, message)
            if started is not None:
                await started.wait()
            if channel.waits_for_reader and outbox.over_limit:
                await outbox.wait_below_limit()

    async def write(self) -> None:
        """Send what the outbox gives until it has finished or the client is gone."""
        try:
            while batch := await self.outbox.take_batch():
                await self._channel.send_many(batch)
        except ChannelClosed:
            return


def _read(data: bytes | str | TooLong) -> Message:
    if isinstance(data, TooLong):
        return Malformed(f"Parse error: a message is longer than {data.limit} bytes")
    return parse(data)


async def serve_connection(
    channel: MessageChannel, gateway: Gateway, working_directory: str | None = None
) -> None:
    """Serve one client until either side ends the connection; the channel is closed afterwards.

    Cancelled, it ends the connection without a farewell. An exception in here is logged and ends this
    connection only.
    """
    connection: Connection | None = None
    cancelled = True
    try:
        async with trio.open_nursery() as nursery:
            connection = Connection(channel, gateway, nursery, working_directory)
            gateway.connections[connection.id] = connection
            log.debug("%s connected", connection.name)
            nursery.start_soon(_run_writer, connection)
            if gateway.closing:
                connection.close(CLOSE_GOING_AWAY, "server is shutting down")
            if not channel.waits_for_reader:
                nursery.start_soon(connection.watch_overflow)
            await connection.read()
            await connection.finish()
            nursery.cancel_scope.cancel()
        cancelled = False
    except Exception:
        cancelled = False
        log.exception("connection %s failed", channel.name)
    finally:
        if connection is not None:
            _part(connection)
        code, reason = (connection and connection.end) or (CLOSE_NORMAL, "")
        with trio.CancelScope(shield=True) as closing:
            closing.deadline = trio.current_time() + (0 if cancelled else gateway.limits.closing)
            await channel.aclose(code, reason)


async def _run_writer(connection: Connection) -> None:
    await connection.write()
    connection.nursery.cancel_scope.cancel()


def _part(connection: Connection) -> None:
    """Forget the connection; synchronous, so that nothing comes between."""
    if connection.end is None:
        connection.end = (CLOSE_NORMAL, "")
    connection.outbox.finish(drop=True)
    del connection.gateway.connections[connection.id]
    connection.gateway.departures.unpark_all()
    log.debug("%s disconnected", connection.name)
    if connection.initialised:
        connection.gateway.daemon.peer_gone(connection)
