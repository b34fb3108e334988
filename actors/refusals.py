"""How messages are refused: every request is answered, whatever becomes of it."""

from __future__ import annotations

from actors.messages import (
    Message,
    Perform,
    Read,
    ReadHistory,
    Resume,
    Started,
    TurnInterrupt,
    TurnStart,
    TurnSteer,
    Unsubscribe,
)
from protocol.errors import InvalidRequest, RpcError


def missing(message: Message, thread_id: str) -> RpcError | None:
    """What a request calls a thread that is nowhere, if it has its own words for it."""
    match message:
        case Perform():
            return message.act.missing(thread_id)
        case Read():
            return InvalidRequest(f"thread not loaded: {thread_id}")
        case ReadHistory():
            return message.missing
        case _:
            return None


def refuse(message: Message, error: RpcError) -> None:
    """Answer a message that will not be handled; one that nobody asked is dropped."""
    match message:
        case Started() | Resume() | Read() | ReadHistory() | Unsubscribe() | Perform():
            message.reply.error(error)
        case TurnStart() | TurnSteer() | TurnInterrupt():
            message.reply.error(error)
        case _:
            pass
