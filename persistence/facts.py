"""What is known of a thread that its rollout does not say: facts, read state, goal.

A fact overrides what the rollout says: a name, the repository's state. It is kept by thread id alone, so it
outlives a rebuild of the index, and may even be there before the rollout is. Names are also appended to
``session_index.jsonl``, which the reference program reads and writes: with it they outlive the database.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from persistence.appending import write_all
from persistence.database import Operation
from persistence.home import FILE_MODE, Home
from persistence.queue import forget_queue
from persistence.rollout_files import parse_object
from persistence.rollout_lines import format_timestamp, parse_timestamp
from protocol.base import encode

log = logging.getLogger(__name__)

GoalStatus = Literal["active", "paused", "blocked", "usageLimited", "budgetLimited", "complete"]


class Unset(Enum):
    """The type of ``UNSET``."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Nothing was said, where None says something."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """What the user has read: everything before the first unread turn; None is everything."""

    first_unread_turn_id: str | None
    revision: str


@dataclass(frozen=True, slots=True)
class Goal:
    """What a thread works towards. Times are Unix milliseconds."""

    objective: str
    status: GoalStatus
    token_budget: int | None
    tokens_used: int
    time_used_seconds: int
    created_at_ms: int
    updated_at_ms: int


# Merging: expressions over the tables ``threads t`` and ``thread_facts f``, one per column a fact overrides.
NAME = "CASE WHEN f.name_set THEN f.name ELSE t.name END"
_GIT_BITS = {"git_sha": 1, "git_branch": 2, "git_origin_url": 4}
MERGED = ", ".join(
    (
        f"{NAME} AS name",
        *(f"CASE WHEN f.git_set & {bit} THEN f.{name} ELSE t.{name} END AS {name}"
          for name, bit in _GIT_BITS.items()),
    )
)  # fmt: skip

_GOAL = "objective, status, token_budget, tokens_used, time_used_seconds, created_at_ms, updated_at_ms"


def set_facts(thread_id: str, facts: Mapping[str, Any], now_ms: int) -> list[Operation]:
    """Store facts; None is a fact too.

    Raises:
        ValueError: there is no fact of that name, or its value is no text.
    """
    operations: list[Operation] = []
    for name, value in facts.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"the fact {name!r} must be a text, not {type(value).__name__}")
        stored = value.encode("utf-8", "replace").decode() if value is not None else None
        if name == "name":
            flag, mark, merged = "name_set", max(now_ms, 1), "excluded.name_set"
        elif name in _GIT_BITS:
            flag, mark, merged = "git_set", _GIT_BITS[name], "git_set | excluded.git_set"
        else:
            raise ValueError(f"there is no fact {name!r}")
        statement = (
            f"INSERT INTO thread_facts (thread_id, {name}, {flag}) VALUES (?, ?, ?) "  # noqa: S608
            f"ON CONFLICT (thread_id) DO UPDATE SET {name}=excluded.{name}, {flag}={merged}"
        )
        operations.append((statement, (thread_id, stored, mark)))
    return operations


def set_updated(thread_id: str, at_ms: int) -> list[Operation]:
    """The thread was updated at that moment, though no line says so."""
    fact = (
        "INSERT INTO thread_facts (thread_id, updated_at_ms) VALUES (?, ?) "
        "ON CONFLICT (thread_id) DO UPDATE SET updated_at_ms=max(updated_at_ms, excluded.updated_at_ms)"
    )
    row = "UPDATE rollouts SET updated_at_ms=max(updated_at_ms, ?) WHERE thread_id=?"
    return [(fact, (thread_id, at_ms)), (row, (at_ms, thread_id))]


def set_read_state(thread_id: str, state: ReadState) -> Operation:
    """Store a read state."""
    values = (thread_id, state.first_unread_turn_id, state.revision)
    return (
        "INSERT OR REPLACE INTO read_states (thread_id, first_unread_turn_id, revision) VALUES (?, ?, ?)",
        values,
    )


def set_goal(thread_id: str, goal: Goal) -> Operation:
    """Store a goal in place of the one there is."""
    values = tuple(getattr(goal, name) for name in _GOAL.split(", "))
    statement = f"INSERT OR REPLACE INTO goals (thread_id, {_GOAL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    return statement, (thread_id, *values)


def clear_goal(thread_id: str) -> Operation:
    """Remove the goal, if there is one."""
    return "DELETE FROM goals WHERE thread_id=?", (thread_id,)


def forget_facts(thread_id: str) -> list[Operation]:
    """Remove all that is said here of a thread."""
    tables = ("thread_facts", "read_states", "goals")
    forget = [(f"DELETE FROM {table} WHERE thread_id=?", (thread_id,)) for table in tables]  # noqa: S608
    return [*forget, *forget_queue(thread_id)]


def read_goal(connection: sqlite3.Connection, thread_id: str) -> Goal | None:
    """The thread's goal, or None."""
    row = connection.execute(f"SELECT {_GOAL} FROM goals WHERE thread_id=?", (thread_id,)).fetchone()  # noqa: S608
    return Goal(*row) if row is not None else None


def read_states_of(connection: sqlite3.Connection, thread_ids: Sequence[str]) -> dict[str, ReadState]:
    """The read states of those threads that have one."""
    found: dict[str, ReadState] = {}
    for start in range(0, len(thread_ids), 500):
        some = thread_ids[start : start + 500]
        marks = ", ".join("?" * len(some))
        statement = f"SELECT * FROM read_states WHERE thread_id IN ({marks})"  # noqa: S608
        for row in connection.execute(statement, some):
            found[row["thread_id"]] = ReadState(row["first_unread_turn_id"], row["revision"])
    return found


def append_name(home: Home, thread_id: str, name: str | None, at_ms: int) -> None:
    """Note a name in ``session_index.jsonl``; a failure is logged, the database has the name.

    A name that was cleared is noted as "".
    """
    line = {"id": thread_id, "thread_name": name or "", "updated_at": format_timestamp(at_ms)}
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(home.session_index, flags, FILE_MODE)
        try:
            # A crash may have left half a line: it spoils nothing but itself.
            size = os.fstat(descriptor).st_size
            half = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            write_all(descriptor, (b"\n" if half else b"") + encode(line) + b"\n")
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        log.warning("the name of thread %s could not be noted: %s", thread_id, error)


def name_operations(connection: sqlite3.Connection, home: Home) -> list[Operation]:
    """What to store so that the index has the names of ``session_index.jsonl``; the last of a thread counts.

    A name that was given elsewhere after ours takes its place.
    """
    names: dict[str, tuple[str, int]] = {}
    try:
        with home.session_index.open("rb") as lines:
            for raw in lines:
                body = parse_object(raw) or {}
                thread_id, name = body.get("id"), body.get("thread_name")
                if isinstance(thread_id, str) and isinstance(name, str):
                    at = parse_timestamp(body.get("updated_at")) or 0
                    names[thread_id] = (name.encode("utf-8", "replace").decode(), at)
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("the names of threads cannot be read: %s", error)
        return []
    operations: list[Operation] = []
    for thread_id, (name, at) in names.items():
        row = connection.execute("SELECT name FROM threads WHERE thread_id=?", (thread_id,)).fetchone()
        if row is not None and (row["name"] or "") != name:
            operations.append(("UPDATE threads SET name=? WHERE thread_id=?", (name or None, thread_id)))
        ours = connection.execute(
            "SELECT name_set FROM thread_facts WHERE thread_id=?", (thread_id,)
        ).fetchone()
        if ours is not None and 0 < ours["name_set"] < at:
            # Not a name that is given while we read.
            older = "UPDATE thread_facts SET name=NULL, name_set=0 WHERE thread_id=? AND name_set<?"
            operations.append((older, (thread_id, at)))
    return operations
