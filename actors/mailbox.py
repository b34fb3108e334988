"""A thread's mailbox: one queue, one reader, messages in arrival order.

Three kinds of sender share it, and each is bounded in its own way:

* clients (``put``): refused with ``Overloaded`` when ``capacity`` messages wait. Never silent, never waits.
* the actor's own turn (``post``): waits for room, so a fast model is held back by a slow step.
* the daemon itself (``put_always``): answers, disconnects, the end of a turn, shutdown. There is at most
  one such message per pending question, connection and turn, so it needs no bound of its own.

Trio's memory channel was rejected: it has one bound for all senders, and a wait for `message or deadline`
needs a cancel scope per message, which costs more than the rest of a delta's step.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

from protocol.errors import Overloaded

T = TypeVar("T")

DEFAULT_CAPACITY = 1024
_STEPS_BEFORE_YIELD = 32


class Mailbox(Generic[T]):
    """FIFO of messages with one reader.

    Attributes:
        capacity: how many messages may wait before clients are refused and the turn is held back.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self._waiting: deque[T] = deque()
        self._reader = trio.lowlevel.ParkingLot()
        self._posters = trio.lowlevel.ParkingLot()
        # Invariant: the reader is parked only while `_waiting` is empty.
        self._steps = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: T) -> None:
        """Add a client's message.

        Raises:
            Overloaded: ``capacity`` messages wait already.
        """
        if len(self._waiting) >= self.capacity:
            raise Overloaded
        self.put_always(message)

    def put_always(self, message: T) -> None:
        """Add a message that must not be lost; see the module docstring for who may."""
        self._waiting.append(message)
        self._reader.unpark()

    async def post(self, message: T) -> None:
        """Add a message of the turn, waiting for room. Cancelled: the message was not added."""
        # Before the message is added, and not after: who is cancelled must know that it was not.
        await trio.lowlevel.checkpoint_if_cancelled()
        while len(self._waiting) >= self.capacity:
            await self._posters.park()
        self.put_always(message)

    async def get(self, deadline: float) -> T | None:
        """Take the next message, or None when ``deadline`` (on ``trio.current_time()``) passes first.

        Cancelled: no message was taken.
        """
        if self._waiting:
            self._steps += 1
            if self._steps >= _STEPS_BEFORE_YIELD:
                self._steps = 0
                await trio.lowlevel.checkpoint()
        else:
            with trio.CancelScope(deadline=deadline) as scope:
                while not self._waiting:
                    await self._reader.park()
            if scope.cancelled_caught and not self._waiting:
                return None
        message = self._waiting.popleft()
        if len(self._waiting) < self.capacity:
            self._posters.unpark()
        return message

    def peek(self) -> T | None:
        """The message that ``get`` would take, without taking it; None while nothing waits."""
        return self._waiting[0] if self._waiting else None

    def drain(self) -> list[T]:
        """Everything that waits, taken out: for whoever answers it when the reader is gone."""
        messages = list(self._waiting)
        self._waiting.clear()
        self._posters.unpark_all()
        return messages
