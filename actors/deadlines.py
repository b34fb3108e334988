"""When an actor acts although nobody has sent it a message.

It has no timers: it waits for its next message or for the one moment that this page names, whichever comes
first. What waits in the mailbox always goes before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import trio

from actors.residency import Residency
from actors.state import ThreadState
from persistence.config import Unattended

RESTS = (0.0, 0.0, 1.0, 2.0, 4.0)
"""Seconds between turns of a goal, by how many in a row have called no tool."""

RETRY_SECONDS = 5.0
"""How long to wait where a turn of a goal could not even be started."""


@dataclass(frozen=True, slots=True)
class Due:
    """What comes next by itself. ``at`` is on ``trio.current_time()``; infinity: nothing does."""

    at: float
    what: Literal["unload", "unattended", "goal", "runtime"]


class Deadlines:
    """The moments of one thread.

    Args:
        unload_after: seconds that an idle thread without subscribers stays loaded.
        policy: what happens to questions while nobody is attached.
    """

    def __init__(self, unload_after: float, policy: Unattended) -> None:
        self._unload_after = unload_after
        self.policy = policy
        # The questions that nobody is there to answer, and since when it is these.
        self._alone_with: tuple[int, ...] = ()
        self._alone_since = math.inf
        self._quiet_since = trio.current_time()
        self._turn_ended = -math.inf
        self._goal_not_before = -math.inf

    def adopted(self, before: ThreadState | None, after: ThreadState) -> None:
        """A step has changed the state."""
        now = trio.current_time()
        alone_with = () if after.subscribers else tuple(entry.request_id for entry in after.pending)
        if alone_with != self._alone_with:
            self._alone_with, self._alone_since = alone_with, now
        if before is not None and before.turn is not None and after.turn is None:
            self._turn_ended, self._goal_not_before = now, -math.inf

    def goal_tried(self) -> None:
        """A turn of the goal is about to be started; if that fails, not again at once."""
        self._goal_not_before = trio.current_time() + RETRY_SECONDS

    def handled(self) -> None:
        """A message has been handled: the thread has been quiet since now."""
        self._quiet_since = trio.current_time()

    def next(self, state: ThreadState | None, residency: Residency, *, draining: bool) -> Due:
        """What comes next, if no message comes before."""
        moments = [Due(self._unload_at(state), "unload"), Due(residency.deadline(), "runtime")]
        if self._alone_with:
            moments.append(Due(self._alone_since + self.policy.seconds, "unattended"))
        elif state is not None and _has_work(state) and not draining:
            rest = RESTS[min(state.idle_goal_turns, len(RESTS) - 1)]
            moments[0] = Due(max(self._turn_ended + rest, self._goal_not_before), "goal")
        return min(moments, key=lambda due: due.at)

    def _unload_at(self, state: ThreadState | None) -> float:
        if state is None or state.turn is not None or state.subscribers:
            return math.inf
        # A thread that nobody knows as loaded came for one act: it leaves as soon as nothing waits.
        return self._quiet_since + (self._unload_after if state.announced else 0)


def _has_work(state: ThreadState) -> bool:
    """Whether the thread goes on by itself."""
    goal = state.goal
    return state.turn is None and state.announced and goal is not None and goal.status == "active"
