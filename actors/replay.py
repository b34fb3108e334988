"""The last notifications of a thread, for clients that come back.

Every notification of a thread carries ``seq``, which counts by one from the actor's first, and ``epoch``,
which names this life of the daemon. A client that was away asks for what followed the last ``seq`` it saw; if
the ring still holds all of it, it gets exactly that, else a fresh snapshot. Who is not attached gets the
broadcasts among them without a number: it has not seen what came before.

A new incarnation of an actor goes on above every ``seq`` that any thread of this daemon has used, so that a
number never means two things in one epoch. The ring starts empty then: what it does not hold is a snapshot.
"""

from __future__ import annotations

from collections import deque

from actors.peer import Outgoing

RING_BYTES = 512 * 1024
"""Bytes of notifications kept per thread while it is loaded."""


class ReplayRing:
    """The tail of a thread's notifications.

    Attributes:
        seq: of the last notification; the next has one more.
    """

    def __init__(self, floor: int, limit: int = RING_BYTES) -> None:
        self.seq = floor
        self._limit = limit
        # Invariant: consecutive seqs, the last one is `seq`; `_bytes` is the sum of their lengths.
        self._kept: deque[tuple[int, Outgoing]] = deque()
        self._bytes = 0

    def next_seq(self) -> int:
        """The number of the next notification, which must then be kept."""
        self.seq += 1
        return self.seq

    def keep(self, message: Outgoing) -> None:
        """Keep the notification that ``seq`` belongs to."""
        self._kept.append((self.seq, message))
        self._bytes += len(message.data)
        while self._bytes > self._limit:
            _, old = self._kept.popleft()
            self._bytes -= len(old.data)

    def after(self, seq: int) -> list[Outgoing] | None:
        """Everything that followed ``seq``, or None where the ring does not hold all of it."""
        if seq == self.seq:
            return []
        if not self._kept or not self._kept[0][0] - 1 <= seq < self.seq:
            return None
        return [message for number, message in self._kept if number > seq]

    def forget(self) -> None:
        """Let go of what is kept; the count goes on."""
        self._kept.clear()
        self._bytes = 0
