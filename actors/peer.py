"""What an actor knows of a client: something that takes messages and never makes it wait.

The transport implements both interfaces; tests implement them in memory. An actor never sees a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from protocol.errors import RpcError


@dataclass(frozen=True, slots=True)
class Delta:
    """The parts of a text delta that an outbox needs to merge waiting deltas of one item.

    Two deltas may be merged when ``key`` is equal: the text is appended, the later time and ``seq`` kept.
    """

    key: tuple[object, ...]
    params: Mapping[str, Any]
    """The notification's params as plain wire values, with ``delta`` in it."""
    text: str
    emitted_at_ms: int
    seq: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One encoded message. The same object goes to every client that gets it.

    Attributes:
        data: the JSON text, UTF-8, without a newline.
        method: the notification's method, for opt-out; None for answers and server requests,
            which are never dropped and never held back.
        delta: set on text deltas only.
    """

    data: bytes
    method: str | None = None
    delta: Delta | None = None


class Peer(Protocol):
    """One connected client."""

    @property
    def id(self) -> int:
        """Unique in this daemon's life."""
        ...

    @property
    def client_name(self) -> str:
        """``clientInfo.name`` of the handshake."""
        ...

    def deliver(self, message: Outgoing) -> None:
        """Queue one message for the client. Never waits, never raises.

        What a client that cannot take it deserves is the transport's decision. A client that opted out
        of ``message.method`` does not get it; a closed one gets nothing.
        """
        ...


class Reply(Protocol):
    """The slot for the one answer of one request. A second answer is a bug and raises."""

    @property
    def peer(self) -> Peer:
        """Who asked."""
        ...

    def result(self, value: object) -> None:
        """Answer with a wire model or plain JSON values."""
        ...

    def error(self, error: RpcError) -> None:
        """Answer with an error."""
        ...
