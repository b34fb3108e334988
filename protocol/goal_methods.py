"""Parameters, results and notifications of ``thread/goal/*``.

A goal is what a thread works towards by itself: while it is ``active`` the daemon starts turns whenever the
thread is idle.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from protocol.base import Wire

GoalStatus = Literal["active", "paused", "blocked", "usageLimited", "budgetLimited", "complete"]

_I64 = 2**63 - 1


class ThreadGoal(Wire):
    """A goal. ``created_at`` and ``updated_at`` are Unix seconds; cached input counts for no tokens."""

    thread_id: str
    objective: str
    status: GoalStatus
    token_budget: int | None = None
    tokens_used: int
    time_used_seconds: int
    created_at: int
    updated_at: int


class GoalSetParams(Wire):
    """``thread/goal/set``: a new goal, or (without ``objective``) a change of the one there is.

    ``token_budget`` null lifts the limit, left out keeps it.
    """

    thread_id: str
    objective: str | None = None
    status: GoalStatus | None = None
    token_budget: int | None = Field(default=None, ge=-_I64, le=_I64)
    origin: Literal["user", "automatic"] | None = None


class GoalSetResult(Wire):
    """``thread/goal/set``."""

    goal: ThreadGoal


class GoalGetParams(Wire):
    """``thread/goal/get``."""

    thread_id: str


class GoalGetResult(Wire):
    """``thread/goal/get``; null where there is none."""

    goal: ThreadGoal | None = None


class GoalClearParams(Wire):
    """``thread/goal/clear``."""

    thread_id: str
    origin: Literal["user", "automatic"] | None = None


class GoalClearResult(Wire):
    """``thread/goal/clear``; false: there was none."""

    cleared: bool


class GoalUpdated(Wire):
    """``thread/goal/updated``; ``turn_id`` names the turn that changed it, if one did."""

    thread_id: str
    turn_id: str | None = None
    goal: ThreadGoal
