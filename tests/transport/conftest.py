from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio

from tests.transport.fakes import FakeDaemon, MemoryChannel, gateway
from transport.connection import Connection, Gateway, Limits, serve_connection


@dataclass
class Session:
    """A connection over a memory channel, served in the background."""

    daemon: FakeDaemon
    gateway: Gateway
    channel: MemoryChannel

    @property
    def connection(self) -> Connection:
        (connection,) = self.gateway.connections.values()
        return connection


@pytest.fixture
async def serve(nursery: trio.Nursery) -> Callable[..., Session]:
    def start(limits: Limits | None = None, *, stdio: bool = False) -> Session:
        daemon, shared = gateway(limits)
        session = Session(daemon, shared, MemoryChannel(stdio=stdio))
        nursery.start_soon(serve_connection, session.channel, shared)
        return session

    return start
