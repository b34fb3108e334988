"""What waits to be sent to one client.

``put`` never waits, because the actor that calls it must never wait for a client. What bounds the memory
is the backlog in bytes: above ``limit`` the outbox says so (``over_limit``) and its connection acts on it,
by closing (websocket, unix socket) or by reading no further requests (stdio). Above ``merge_above`` a text
delta is merged into the one before it if both belong to the same item, so that a client that lags behind
gets fewer and longer deltas. A client that keeps up gets every delta as it was made.

A merged delta is encoded when it is taken, not when it grows: appending n deltas costs O(n).
"""

from __future__ import annotations

from collections import deque

import trio

from actors.peer import Delta, Outgoing
from protocol.jsonrpc import encode_notification

DEFAULT_LIMIT = 64 * 1024 * 1024
"""Bytes that may wait for one client."""

MERGE_ABOVE = 1024 * 1024
"""Deltas are merged only while more bytes than this are waiting, where nobody says otherwise."""

BATCH_BYTES = 256 * 1024
"""About how many bytes the writer takes at once: what is taken can no longer be merged or dropped."""


class _Merged:
    """Several deltas of one item that became one message."""

    __slots__ = ("last", "method", "size", "texts")

    def __init__(self, first: Outgoing, delta: Delta) -> None:
        self.method = first.method or ""
        self.last = delta
        self.texts = [delta.text]
        # Bytes this counts for in the backlog: exact for the first delta, the text's length for the others.
        self.size = len(first.data)

    def encode(self) -> bytes:
        last = self.last
        params = {**last.params, "delta": "".join(self.texts)}
        return encode_notification(self.method, params, last.emitted_at_ms, seq=last.seq, epoch=last.epoch)


def _size(entry: Outgoing | _Merged) -> int:
    return len(entry.data) if isinstance(entry, Outgoing) else entry.size


class Outbox:
    """A FIFO of messages, bounded in bytes. One task takes, anyone puts.

    Args:
        limit: bytes above which ``over_limit`` is set.
        merge_above: bytes above which deltas are merged.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, merge_above: int = MERGE_ABOVE) -> None:
        self.limit = limit
        self._merge_above = merge_above
        # Invariant: order of the entries == order of the puts. Only the last entry ever changes.
        self._waiting: deque[Outgoing | _Merged] = deque()
        # Invariant: the sum of the sizes of the entries.
        self.backlog = 0
        # Invariant: the size of the first unmerged entry that is longer than the limit; 0: there is none.
        self._long = 0
        # Invariant: not None only while somebody waits for a backlog that is above the limit.
        self._below_limit: trio.Event | None = None
        # Invariant: not None only while somebody waits for a backlog that is within the limit.
        self._above_limit: trio.Event | None = None
        # Invariant: not None only while the writer waits, and then ``_waiting`` is empty.
        self._wake: trio.Event | None = None
        # Invariant: once True, nothing is put any more; take_batch gives the rest and then nothing.
        self._finished = False

    @property
    def over_limit(self) -> bool:
        """Whether more bytes wait than the limit allows."""
        return self.backlog > self.limit

    @property
    def flooded(self) -> bool:
        """Whether more than twice the limit waits, besides one message that may be as long as it is."""
        return self.backlog - self._long > 2 * self.limit

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def put(self, message: Outgoing) -> None:
        """Append a message; after ``finish`` it is dropped."""
        if self._finished:
            return
        delta = message.delta
        if delta is not None and self.backlog > self._merge_above and self._merge(delta):
            return
        self._waiting.append(message)
        self.backlog += len(message.data)
        if not self._long and len(message.data) > self.limit:
            self._long = len(message.data)
        self._grown()
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def _grown(self) -> None:
        if self._above_limit is not None and self.backlog > self.limit:
            self._above_limit.set()
            self._above_limit = None

    def _merge(self, delta: Delta) -> bool:
        last = self._waiting[-1]
        if isinstance(last, Outgoing):
            if last.delta is None or last.delta.key != delta.key:
                return False
            last = self._waiting[-1] = _Merged(last, last.delta)
            if self._long:
                self._long = self._first_long()
        elif last.last.key != delta.key or last.size > BATCH_BYTES:
            return False
        last.last = delta
        last.texts.append(delta.text)
        # Characters stand for bytes: an estimate is enough to bound memory and costs no encoding.
        last.size += len(delta.text)
        self.backlog += len(delta.text)
        self._grown()
        return True

    async def take_batch(self) -> list[bytes]:
        """Wait for messages and take them, up to about ``BATCH_BYTES`` or one message that is longer.

        Gives an empty list after ``finish``, when nothing is left. Cancelled while waiting, it has
        taken nothing.
        """
        if not self._waiting:
            if self._finished:
                return []
            self._wake = trio.Event()
            await self._wake.wait()
        waiting = self._waiting
        batch: list[bytes] = []
        taken = 0
        while waiting:
            entry = waiting[0]
            size = _size(entry)
            if batch and taken + size > BATCH_BYTES:
                break
            waiting.popleft()
            taken += size
            batch.append(entry.data if isinstance(entry, Outgoing) else entry.encode())
        self.backlog -= taken
        if taken > self.limit:
            self._long = self._first_long()
        if self._below_limit is not None and self.backlog <= self.limit:
            self._below_limit.set()
            self._below_limit = None
        return batch

    def _first_long(self) -> int:
        longs = (len(e.data) for e in self._waiting if isinstance(e, Outgoing) and len(e.data) > self.limit)
        return next(longs, 0)

    async def wait_above_limit(self) -> None:
        """Wait until the backlog is above the limit; returns at once when it is."""
        while not self.over_limit:
            if self._above_limit is None:
                self._above_limit = trio.Event()
            await self._above_limit.wait()

    async def wait_below_limit(self) -> None:
        """Wait until the backlog is within the limit (or dropped); returns at once when it is."""
        while self.over_limit:
            if self._below_limit is None:
                self._below_limit = trio.Event()
            await self._below_limit.wait()

    def finish(self, *, drop: bool = False) -> None:
        """Take no more messages. ``drop``: let go of what waits, too."""
        self._finished = True
        if drop:
            self._waiting.clear()
            self.backlog = self._long = 0
            if self._below_limit is not None:
                self._below_limit.set()
                self._below_limit = None
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def check_invariants(self) -> None:
        """Raise AssertionError where the fields contradict each other. For tests."""
        assert self.backlog == sum(map(_size, self._waiting))
        assert self._long == self._first_long()
        assert self._wake is None or not self._waiting
        assert self._below_limit is None or self.over_limit
        assert self._above_limit is None or not self.over_limit
