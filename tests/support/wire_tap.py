"""A relay between a client that is not ours and the daemon, which keeps what the client got.

    async with open_tap(daemon.url) as tap:
        ... start the client with tap.url; then look at tap.traffic ...

Each connection of the client is one ``Traffic``, made for comparison with the schemas.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
    wrap_client_stream,
)

from tests.support.traffic import Traffic

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass
class Tap:
    """The relay.

    Attributes:
        server: where new connections lead; may be changed. None: they are refused.
        url: to connect to.
        traffic: one per connection so far.
    """

    server: str | None
    url: str = ""
    traffic: list[Traffic] = field(default_factory=list)

    async def relay(self, request: WebSocketRequest) -> None:
        """One connection of the client; ends when either side does."""
        if self.server is None:
            await request.reject(503)
            return
        address = urlsplit(self.server)
        with suppress(OSError, ConnectionClosed):
            # A websocket of ours does not close the stream below it when the other end just dies.
            stream = await trio.open_tcp_stream(str(address.hostname), address.port or 80)
            async with stream, trio.open_nursery() as nursery:
                daemon = await wrap_client_stream(
                    nursery, stream, address.netloc, "/", max_message_size=_MAX_MESSAGE_BYTES
                )
                traffic = Traffic()
                self.traffic.append(traffic)
                client = await request.accept()
                nursery.start_soon(_copy, client, daemon, traffic, False, nursery.cancel_scope)
                nursery.start_soon(_copy, daemon, client, traffic, True, nursery.cancel_scope)


async def _copy(
    source: WebSocketConnection,
    target: WebSocketConnection,
    traffic: Traffic,
    came: bool,
    both: trio.CancelScope,
) -> None:
    with suppress(ConnectionClosed):
        while True:
            text = await source.get_message()
            traffic.watch(json.loads(text), came)
            await target.send_message(text)
    both.cancel()


@asynccontextmanager
async def open_tap(server: str) -> AsyncGenerator[Tap, None]:
    """A relay to this server, on 127.0.0.1, until the context is left."""
    tap = Tap(server)
    serve = partial(serve_websocket, tap.relay, "127.0.0.1", 0, None, max_message_size=_MAX_MESSAGE_BYTES)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(serve)
        tap.url = f"ws://127.0.0.1:{listening.port}"
        yield tap
        nursery.cancel_scope.cancel()
