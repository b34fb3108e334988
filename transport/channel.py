"""What a connection needs of a transport: whole messages in, whole messages out, and an end."""

from __future__ import annotations

from typing import Protocol

from transport.framing import TooLong


class ChannelClosed(Exception):
    """The client is gone, or the channel was closed: nothing can be sent any more."""


class MessageChannel(Protocol):
    """One transport connection. One task receives, one task sends."""

    @property
    def name(self) -> str:
        """For log lines: where the client comes from."""
        ...

    @property
    def waits_for_reader(self) -> bool:
        """What happens to a client that does not read.

        True (stdio): it is waited for, and it may close its sending half before it has read its answers.
        False: it is disconnected.
        """
        ...

    async def receive(self) -> bytes | str | TooLong | None:
        """The next message; ``TooLong`` for one that was skipped; None at the end.

        Never raises for what a client does. Cancelled, no message is lost.
        """
        ...

    async def send_many(self, messages: list[bytes]) -> None:
        """Send messages in order. Cancelled in the middle, the channel is broken for good.

        Raises:
            ChannelClosed: the client is gone.
        """
        ...

    async def aclose(self, code: int, reason: str) -> None:
        """End the connection, politely where it is still whole. ``code`` is a websocket close code.

        Never raises for what a client does. Cancelled, the connection is ended forcefully.
        """
        ...
