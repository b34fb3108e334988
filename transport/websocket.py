"""One client on a websocket, over TCP or over a unix socket.

What the library leaves to its caller, and where it is done:

* a send that is cancelled leaves half a frame, and the next send would succeed and corrupt the connection:
  the channel remembers it and ends the connection forcefully (``aclose``);
* many messages in one write: text frames are made here (``text_frames``);
* while nobody takes messages, no ping, pong or close is handled: the connection's reader never waits for
  anything but messages;
* a client that vanished without a farewell is found by pings (``_keep_alive``).
"""

from __future__ import annotations

import logging
from socket import AF_UNIX

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection
from wsproto.utilities import LocalProtocolError

from transport.channel import ChannelClosed
from transport.connection import Gateway, serve_connection
from transport.framing import MAX_MESSAGE_BYTES
from transport.http_front import HEAD_TIMEOUT, Authenticator, accept_upgrade
from transport.replay_stream import ReplayStream
from transport.unix_client import VERSION_HEADER, attached_from

log = logging.getLogger(__name__)

PING_INTERVAL = 20.0
PONG_TIMEOUT = 20.0
RECEIVE_BYTES = 64 * 1024
_RULES_BROKEN = (1002, 1003, 1007)
LONGEST_FRAME = 16 * 1024 * 1024
"""Bytes of a frame that we send: websocket libraries refuse longer ones by default, but join frames."""

_LARGEST_UNFRAGMENTED = b"16777216"
"""What clients on the unix socket are told they may send in one frame; longer ones are taken, too."""

# The library logs two lines for every frame at debug level.
logging.getLogger("trio-websocket").setLevel(logging.INFO)


class WebSocketChannel:
    """Messages are text frames; binary frames are ignored.

    Args:
        socket: the connection after the handshake.
        stream: the stream under it.
        name: where the client comes from.
        waits_for_reader: the client is a process of ours that stands for one on standard streams.
    """

    def __init__(
        self, socket: WebSocketConnection, stream: ReplayStream, name: str, *, waits_for_reader: bool = False
    ) -> None:
        self.name = name
        self.waits_for_reader = waits_for_reader
        self._socket = socket
        self._stream = stream
        # Invariant: once True, half a frame may have been sent: nothing may follow it.
        self._broken = False

    async def receive(self) -> str | None:
        """See ``MessageChannel.receive``."""
        try:
            while True:
                message = await self._socket.get_message()
                if isinstance(message, str):
                    return message
        except ConnectionClosed:
            return None

    async def send_many(self, messages: list[bytes]) -> None:
        """See ``MessageChannel.send_many``; all frames leave in one write."""
        if self._socket.closed is not None:
            raise ChannelClosed
        whole = False
        try:
            await self._stream.send_all(text_frames(messages))
            whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ChannelClosed from error
        finally:
            self._broken = self._broken or not whole

    async def aclose(self, code: int, reason: str) -> None:
        """See ``MessageChannel.aclose``."""
        try:
            if not self._broken:
                await self._socket.aclose(code, reason)
        finally:
            await trio.aclose_forcefully(self._stream)


def text_frames(messages: list[bytes]) -> bytes:
    """A server's unmasked text frames.

    The library takes one message at a time, with a lock, a turn of the scheduler and two passes over the
    text for each: that is most of the cost of a streamed delta. What it sends itself (pongs, close
    frames) goes through the same stream and falls between frames.
    """
    parts: list[bytes] = []
    for message in messages:
        length = len(message)
        if length < 126:
            parts.append(bytes((0x81, length)))
        elif length < 1 << 16:
            parts.append(b"\x81\x7e" + length.to_bytes(2, "big"))
        elif length <= LONGEST_FRAME:
            parts.append(b"\x81\x7f" + length.to_bytes(8, "big"))
        else:
            parts.append(_fragments(message))
            continue
        parts.append(message)
    return b"".join(parts)


def _fragments(message: bytes) -> bytes:
    parts: list[bytes] = []
    opcode = 0x01
    for start in range(0, len(message), LONGEST_FRAME):
        part = message[start : start + LONGEST_FRAME]
        final = 0x80 if start + LONGEST_FRAME >= len(message) else 0
        parts.append(bytes((final | opcode, 0x7F)) + len(part).to_bytes(8, "big") + part)
        opcode = 0x00
    return b"".join(parts)


async def serve_websocket(
    stream: trio.abc.Stream, gateway: Gateway, authenticator: Authenticator | None, name: str
) -> None:
    """Serve one accepted stream until it ends, whatever it speaks; the stream is closed afterwards.

    An exception in here is logged and ends this connection only.
    """
    try:
        async with stream:
            upgrade = await accept_upgrade(stream, authenticator)
            if upgrade is None:
                return
            replay = ReplayStream(stream, upgrade.received, upgrade.head_length, MAX_MESSAGE_BYTES)
            await _serve_frames(replay, gateway, name, local=_is_local(stream))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        log.debug("%s was reset", name)
    except Exception:
        log.exception("connection %s failed", name)


def _is_local(stream: trio.abc.Stream) -> bool:
    return isinstance(stream, trio.SocketStream) and stream.socket.family == AF_UNIX


async def _serve_frames(replay: ReplayStream, gateway: Gateway, name: str, *, local: bool) -> None:
    # Whom the file permissions let in may ask to be waited for: it stands for a client on its own stdio,
    # and says where that was started.
    waits, folder, headers = False, None, []
    if local:
        headers = [
            (b"x-codex-websocket-max-unfragmented-message-bytes", _LARGEST_UNFRAGMENTED),
            (VERSION_HEADER.encode(), gateway.daemon.version.encode()),
        ]
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(HEAD_TIMEOUT) as handshake:
                request = await wrap_server_stream(
                    nursery,
                    replay,
                    message_queue_size=4,
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                if local:
                    folder = attached_from(request.headers)
                    waits = folder is not None
                socket = await request.accept(extra_headers=headers)
            if handshake.cancelled_caught:
                nursery.cancel_scope.cancel()
                return
            replay.last_words = lambda: _complaint(socket)
            if not waits:
                # A unix socket is never half open; who may read slowly may also answer pings late.
                nursery.start_soon(_keep_alive, socket, replay, name)
            channel = WebSocketChannel(socket, replay, name, waits_for_reader=waits)
            await serve_connection(channel, gateway, folder)
            nursery.cancel_scope.cancel()
    except* (ConnectionClosed, LocalProtocolError):
        # The library's reader lets them out when a ping or an error is to be answered while the
        # connection is closing.
        log.debug("%s was reset", name)


def _complaint(socket: WebSocketConnection) -> bytes:
    """The close frame for a client that broke the rules (text that is no UTF-8, a reserved opcode).

    The library knows the code and closes the stream without sending it.
    """
    reason, frames = socket.closed, socket._wsproto
    if reason is None or reason.code not in _RULES_BROKEN or frames.state is not ConnectionState.OPEN:
        return b""
    return bytes(frames.send(CloseConnection(code=reason.code)))


async def _keep_alive(socket: WebSocketConnection, stream: ReplayStream, name: str) -> None:
    """Drop a client that neither answers a ping nor moves a byte in either direction."""
    try:
        while True:
            await trio.sleep(PING_INTERVAL)
            before = stream.progress
            with trio.move_on_after(PONG_TIMEOUT) as waiting:
                await socket.ping()
            if waiting.cancelled_caught and stream.progress <= before + 1:
                log.info("dropping %s: it does not answer pings", name)
                await trio.aclose_forcefully(stream)
                return
    except ConnectionClosed:
        return
