"""Handlers of ``thread/goal/*``: each makes an act and hands it to the mailbox."""

from __future__ import annotations

from actors.goals import ClearGoal, GetGoal, SetGoal
from transport.method import Call


def goal_set(call: Call) -> None:
    """thread/goal/set."""
    call.daemon.supervisor.perform(call.params.thread_id, SetGoal(call.params), call.reply)


def goal_get(call: Call) -> None:
    """thread/goal/get."""
    call.daemon.supervisor.perform(call.params.thread_id, GetGoal(), call.reply)


def goal_clear(call: Call) -> None:
    """thread/goal/clear."""
    call.daemon.supervisor.perform(call.params.thread_id, ClearGoal(), call.reply)
