"""Threads that another thread's act takes along: nobody may load them until that act is over.

A parent that is archived ends the actors of its descendants, waits until they are gone, and then moves the
files. A resume in between must not bring one back: it would go on in a file that moves away below it. So the
descendants are put aside first, and who is made for one of them meanwhile waits before it reads the disk.

No wait of one act for another can close a circle: actors that wait here are never waited for, and of two
acts that take each other along (a circle of parents, in a damaged file) the second lets the first be.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio


@dataclass(eq=False, slots=True)
class _Hold:
    owner: str
    over: trio.Event = field(default_factory=trio.Event)


class PutAside:
    """Which threads are put aside, and for whose act."""

    def __init__(self) -> None:
        # Invariant: a list is not empty.
        self._holds: dict[str, list[_Hold]] = {}
        # Invariant: ids of threads whose actor waits in ``back``, or is going to.
        self._waiting: set[str] = set()

    def take(self, owner: str, thread_ids: list[str]) -> list[str]:
        """Put threads aside until ``give_back``; those that an act has which takes ``owner`` are left out."""
        stronger = {hold.owner for hold in self._holds.get(owner, ())}
        taken = [each for each in thread_ids if each not in stronger]
        hold = _Hold(owner)
        for each in taken:
            self._holds.setdefault(each, []).append(hold)
        return taken

    def give_back(self, owner: str) -> None:
        """The act of ``owner`` is over."""
        for thread_id, holds in list(self._holds.items()):
            for hold in holds:
                if hold.owner == owner:
                    hold.over.set()
            left = [hold for hold in holds if hold.owner != owner]
            if left:
                self._holds[thread_id] = left
            else:
                del self._holds[thread_id]

    def must_wait(self, thread_id: str) -> bool:
        """Whether an actor that is made for the thread now must call ``back`` before it reads the disk."""
        if thread_id not in self._holds:
            return False
        self._waiting.add(thread_id)
        return True

    def waits(self, thread_id: str) -> bool:
        """Whether the thread's actor has touched nothing yet, because it waits."""
        return thread_id in self._waiting

    async def back(self, thread_id: str) -> None:
        """Wait until nobody's act has the thread any more."""
        try:
            while holds := self._holds.get(thread_id):
                await holds[0].over.wait()
        finally:
            self._waiting.discard(thread_id)
