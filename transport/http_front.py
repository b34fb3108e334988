"""The HTTP that a websocket listener speaks before, or instead of, an upgrade.

Probes and refusals are answered here and the connection is closed; an upgrade is handed on with every
byte that was read. Any request with an ``Origin`` header is refused: no web page may reach the daemon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import h11
import trio

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT = 5.0
"""Seconds a client has for its request head."""

PROBES = ("/healthz", "/readyz")


class Authenticator(Protocol):
    """Decides who may upgrade."""

    def refusal(self, authorization: list[str]) -> str | None:
        """None for a client that may come in, else the body of the 401.

        Args:
            authorization: the values of all ``Authorization`` headers.
        """
        ...


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request that goes on as a websocket.

    Attributes:
        received: every byte that was read.
        head_length: how many of them are the request head.
    """

    received: bytes
    head_length: int


async def accept_upgrade(stream: trio.abc.Stream, authenticator: Authenticator | None) -> Upgrade | None:
    """Read one request head and answer it unless it is an upgrade that may go on.

    Returns:
        the upgrade, or None when the request was answered or never came; the stream is not closed.
    """
    with trio.move_on_after(HEAD_TIMEOUT):
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        received = bytearray()
        try:
            request = await _read_head(stream, parser, received)
            if request is None:
                return None
            answer = _answer(request, authenticator)
            if answer is None:
                head_length = len(received) - len(parser.trailing_data[0])
                return Upgrade(bytes(received), head_length)
            await _send(stream, parser, request.method, *answer)
        except h11.RemoteProtocolError as error:
            await _send(stream, parser, b"GET", error.error_status_hint, b"")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
    return None


async def _read_head(
    stream: trio.abc.Stream, parser: h11.Connection, received: bytearray
) -> h11.Request | None:
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        data = await stream.receive_some(MAX_HEAD_BYTES)
        received += data
        parser.receive_data(bytes(data))


def _answer(request: h11.Request, authenticator: Authenticator | None) -> tuple[int, bytes] | None:
    """Status and body, or None for an upgrade that may go on."""
    headers = request.headers
    if any(name == b"origin" for name, _ in headers):
        return 403, b""
    path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
    if request.method not in (b"GET", b"HEAD"):
        return 405, b""
    if path in PROBES:
        return 200, b""
    options = b",".join(value for name, value in headers if name == b"connection").lower()
    if request.method != b"GET" or b"upgrade" not in [option.strip() for option in options.split(b",")]:
        return 400, b"Connection header did not include 'upgrade'"
    if authenticator is not None:
        tokens = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        refusal = authenticator.refusal(tokens)
        if refusal is not None:
            return 401, refusal.encode()
    return None


async def _send(
    stream: trio.abc.Stream, parser: h11.Connection, method: bytes, status: int, body: bytes
) -> None:
    headers = [("Content-Length", str(len(body))), ("Connection", "close")]
    if body:
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    if parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    data = parser.send(h11.Response(status_code=status, headers=headers)) or b""
    if method != b"HEAD" and body:
        data += parser.send(h11.Data(data=body)) or b""
    try:
        await stream.send_all(data)
        if isinstance(stream, trio.SocketStream):
            await stream.send_eof()
            # Closing with unread bytes would reset the connection and could lose the answer.
            while await stream.receive_some(MAX_HEAD_BYTES):
                pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
