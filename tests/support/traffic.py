"""What one connection carried, with each answer joined to the request it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["result", "error", "notification", "request"]


@dataclass(frozen=True)
class Received:
    """A message of the server.

    Attributes:
        kind: what it is.
        method: its method; of an answer, that of the request (None: it answers nothing that was sent).
        message: all of it.
    """

    kind: Kind
    method: str | None
    message: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} of {self.method}" if self.kind in ("result", "error") else f"{self.method}"


class Traffic:
    """Everything that one client got. ``Traffic().watch`` is made for ``Client.watch``."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._asked: dict[str | int, str] = {}

    def watch(self, message: Mapping[str, Any], came: bool) -> None:
        """Take one message."""
        if not came:
            if "method" in message and "id" in message:
                self._asked[message["id"]] = message["method"]
            return
        self.received.append(_received(message, self._asked))

    def __iter__(self) -> Iterator[Received]:
        return iter(self.received)


def _received(message: Mapping[str, Any], asked: Mapping[str | int, str]) -> Received:
    if "method" in message:
        return Received("request" if "id" in message else "notification", message["method"], message)
    number = message.get("id")
    method = asked.get(number) if isinstance(number, int | str) else None
    return Received("error" if "error" in message else "result", method, message)
