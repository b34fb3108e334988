"""The second level of residency: which loaded threads hold a runtime, and for how long.

A loaded thread is an actor, which is cheap. Its runtime is what its turns need and what can be made again:
the model context, the notifications kept for replay, the terminals. The first turn brings it, and it goes

* when no turn has needed it for a while (``Residency``: a deadline of the actor, no task), or
* when there are more runtimes than the daemon may hold: the one that was used least recently goes first
  (``ResidentRuntimes``, kept by the supervisor; the actor is told by a message and decides itself).

Nothing of that can be observed: the next turn reads the model context from the rollout, and a client that
asks for what the ring no longer holds gets a snapshot. Watching is no use of a runtime. What would be lost
pins it: a running turn, a command that still runs, and an ephemeral thread, which is nowhere but in memory.
"""

from __future__ import annotations

import math
from typing import Protocol


class Residency:
    """When the runtime of one thread goes.

    Args:
        idle_seconds: how long it stays after its last use.
    """

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        # Invariant: not None exactly while the thread holds a runtime.
        self._used_at: float | None = None

    @property
    def resident(self) -> bool:
        """Whether the thread holds a runtime."""
        return self._used_at is not None

    def used(self, now: float) -> None:
        """The runtime was made, or used, or cannot go yet; ``now`` is on ``trio.current_time()``."""
        self._used_at = now

    def dropped(self) -> None:
        """It is gone."""
        self._used_at = None

    def deadline(self) -> float:
        """When it goes, unless it is used before."""
        return math.inf if self._used_at is None else self._used_at + self._idle_seconds


class Holder(Protocol):
    """An actor that holds a runtime."""

    @property
    def pinned(self) -> bool:
        """Whether something would be lost with the runtime now."""
        ...

    def ask_to_drop(self) -> None:
        """Let the runtime go in a step of its own, unless it is pinned by then."""
        ...


class ResidentRuntimes:
    """All runtimes of the daemon, least recently used first.

    Args:
        most: how many there may be. Pinned ones stay even beyond that: a turn is never refused for it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # A dict for its order; the values mean nothing. Invariant: nobody who was asked to drop is in it.
        self._holders: dict[Holder, None] = {}

    def __len__(self) -> int:
        """How many there are, without those that were asked to go."""
        return len(self._holders)

    def used(self, holder: Holder) -> None:
        """The holder's runtime was made or used: it is the most recently used now."""
        self._holders.pop(holder, None)
        self._holders[holder] = None
        excess = len(self._holders) - self._most
        if excess > 0:
            for other in [each for each in self._holders if each is not holder and not each.pinned][:excess]:
                del self._holders[other]
                other.ask_to_drop()

    def gone(self, holder: Holder) -> None:
        """The holder has no runtime any more, or has ended."""
        self._holders.pop(holder, None)
