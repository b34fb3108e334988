"""Queued turns on disk: one row each, kept by thread id, apart from everything that is derived.

A row is ``pending`` until it is claimed for a turn (``dispatching``, with the ids of the turn and of the user
message that the turn will record), and is gone in the commit that records that message in the rollout. A row
whose dispatch went wrong is ``failed``. So a message is in exactly one of queue and transcript at every
instant; after a crash, what a claimed row is, the rollout decides (see ``recovered``).

``queued_turns_started`` remembers which row became which turn: adding a message again under its client id, or
deleting one that has started, can then be answered with the turn.

``queue_order`` is unique in a thread, and may be negative. Reordering gives rows numbers that none of the
thread's has had, so that no two rows hold one number in between.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from persistence.database import Operation

RowState = Literal["pending", "dispatching", "failed"]

INTERRUPTED = "queued turn dispatch was interrupted while app-server restarted"
"""The failure of a row that was claimed when the daemon died and did not become a turn."""


UNREADABLE = "the queued turn was damaged on the disk and cannot be read"
"""The failure of a row whose message is no JSON object."""


@dataclass(frozen=True, slots=True)
class QueuedTurn:
    """One row.

    Attributes:
        id: the row's own.
        params: the ``TurnStartParams`` as wire values.
        order: unique in the thread; smaller runs first.
        state: see the module's docstring.
        failure: why it is ``failed``.
        turn_id: the turn it was claimed for, while ``dispatching``.
        item_id: the user message that turn will record.
        created_at_ms, updated_at_ms: Unix milliseconds.
    """

    id: str
    params: dict[str, Any]
    order: int
    state: RowState = "pending"
    failure: str | None = None
    turn_id: str | None = None
    item_id: str | None = None
    created_at_ms: int = 0
    updated_at_ms: int = 0

    @property
    def client_id(self) -> str | None:
        """The client's own name for the message, if it gave one."""
        value = self.params.get("clientUserMessageId")
        return value if isinstance(value, str) and value else None


@dataclass(frozen=True, slots=True)
class StartedRow:
    """A row that has become a turn."""

    id: str
    turn_id: str


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A thread's queue as it is on disk."""

    rows: tuple[QueuedTurn, ...] = ()
    paused: bool = False

    @property
    def claimed(self) -> bool:
        """Whether a row was claimed for a turn."""
        return any(row.state == "dispatching" for row in self.rows)


def insert(thread_id: str, row: QueuedTurn) -> Operation:
    """Store a new row."""
    statement = (
        "INSERT INTO thread_queued_turns (queued_turn_id, thread_id, turn_start_params, "
        "client_user_message_id, queue_order, state, failure, created_at_ms, updated_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    return statement, (
        row.id,
        thread_id,
        json.dumps(row.params),
        row.client_id,
        row.order,
        row.state,
        row.failure,
        row.created_at_ms,
        row.updated_at_ms,
    )


def change(row: QueuedTurn) -> Operation:
    """Store what of a row can change: its message, its state, and what belongs to the state."""
    statement = (
        "UPDATE thread_queued_turns SET turn_start_params=?, client_user_message_id=?, state=?, failure=?, "
        "dispatch_turn_id=?, dispatch_item_id=?, updated_at_ms=? WHERE queued_turn_id=?"
    )
    return statement, (
        json.dumps(row.params),
        row.client_id,
        row.state,
        row.failure,
        row.turn_id,
        row.item_id,
        row.updated_at_ms,
        row.id,
    )


def remove(row_id: str) -> Operation:
    """Delete a row that did not run."""
    return "DELETE FROM thread_queued_turns WHERE queued_turn_id=?", (row_id,)


def started(thread_id: str, row: QueuedTurn) -> list[Operation]:
    """The row's message is in the transcript: the row goes, its turn is remembered."""
    remember = (
        "INSERT OR REPLACE INTO queued_turns_started "
        "(queued_turn_id, thread_id, client_user_message_id, turn_id) VALUES (?, ?, ?, ?)"
    )
    return [remove(row.id), (remember, (row.id, thread_id, row.client_id, row.turn_id))]


def reorder(rows: Iterable[QueuedTurn]) -> Operation:
    """Store the orders of these rows. Each is one that no row of the thread has, these included."""
    # One statement for any number: one by one, each would wait for the interpreter that serves the clients.
    statement = (
        "UPDATE thread_queued_turns SET queue_order=place.value FROM json_each(?) AS place "
        "WHERE queued_turn_id=place.key"
    )
    return statement, (json.dumps({row.id: row.order for row in rows}),)


def pause(thread_id: str, paused: bool) -> Operation:
    """Store whether the queue waits until it is told to go on."""
    if paused:
        return "INSERT OR IGNORE INTO queue_pauses (thread_id) VALUES (?)", (thread_id,)
    return "DELETE FROM queue_pauses WHERE thread_id=?", (thread_id,)


def forget_queue(thread_id: str) -> list[Operation]:
    """Remove all of a thread's queue: the thread is deleted."""
    tables = ("thread_queued_turns", "queued_turns_started", "queue_pauses")
    return [(f"DELETE FROM {table} WHERE thread_id=?", (thread_id,)) for table in tables]  # noqa: S608


def read_queue(connection: sqlite3.Connection, thread_id: str) -> StoredQueue:
    """The thread's rows in order, claimed ones included."""
    statement = "SELECT * FROM thread_queued_turns WHERE thread_id=? ORDER BY queue_order"
    rows = tuple(_row(stored) for stored in connection.execute(statement, (thread_id,)))
    paused = connection.execute("SELECT 1 FROM queue_pauses WHERE thread_id=?", (thread_id,)).fetchone()
    return StoredQueue(rows, paused is not None)


def _row(stored: sqlite3.Row) -> QueuedTurn:
    row = QueuedTurn(
        id=stored["queued_turn_id"],
        params={},
        order=stored["queue_order"],
        state=stored["state"],
        failure=stored["failure"],
        turn_id=stored["dispatch_turn_id"],
        item_id=stored["dispatch_item_id"],
        created_at_ms=stored["created_at_ms"],
        updated_at_ms=stored["updated_at_ms"],
    )
    try:
        params = json.loads(stored["turn_start_params"])
    except ValueError:
        params = None
    if isinstance(params, dict):
        return replace(row, params=params)
    # A damaged disk. One such row must not hide the others, nor be hidden: it is shown and can be deleted.
    return replace(row, state="failed", failure=UNREADABLE, turn_id=None, item_id=None)


def find_started(
    connection: sqlite3.Connection, thread_id: str, *, row_id: str | None = None, client_id: str | None = None
) -> StartedRow | None:
    """The row of that id, or of that client id, if it has become a turn."""
    statement = "SELECT queued_turn_id, turn_id FROM queued_turns_started WHERE thread_id=? AND "
    if row_id is not None:
        found = connection.execute(f"{statement} queued_turn_id=?", (thread_id, row_id)).fetchone()
    else:
        found = connection.execute(f"{statement} client_user_message_id=?", (thread_id, client_id)).fetchone()
    return None if found is None else StartedRow(found["queued_turn_id"], found["turn_id"])


def recovered(
    connection: sqlite3.Connection, thread_id: str, stored: StoredQueue, now_ms: int
) -> tuple[StoredQueue, list[Operation]]:
    """What claimed rows are after a crash, and what to store so that it stays so.

    The rollout decides: if it holds the user message, the row ran and goes; if not, it has failed. A row that
    is not that claim any more when this comes to be stored stays as it is.
    """
    left: list[QueuedTurn] = []
    operations: list[Operation] = []
    for row in stored.rows:
        if row.state != "dispatching":
            left.append(row)
            continue
        recorded = connection.execute(
            "SELECT 1 FROM items WHERE thread_id=? AND turn_id=? AND item_id=?",
            (thread_id, row.turn_id, row.item_id),
        ).fetchone()
        if recorded is not None:
            operations += _settled_as_run(row)
            continue
        failed = replace(
            row,
            state="failed",
            failure=INTERRUPTED,
            turn_id=None,
            item_id=None,
            updated_at_ms=now_ms,
        )
        left.append(failed)
        operations.append(_settled_as_failed(row, failed))
    return StoredQueue(tuple(left), stored.paused), operations


_STILL_CLAIMED = "queued_turn_id=? AND state='dispatching' AND dispatch_turn_id IS ?"


def _settled_as_run(claim: QueuedTurn) -> list[Operation]:
    remember = (
        "INSERT OR REPLACE INTO queued_turns_started "  # noqa: S608
        "(queued_turn_id, thread_id, client_user_message_id, turn_id) "
        "SELECT queued_turn_id, thread_id, client_user_message_id, dispatch_turn_id "
        f"FROM thread_queued_turns WHERE {_STILL_CLAIMED}"
    )
    gone = f"DELETE FROM thread_queued_turns WHERE {_STILL_CLAIMED}"  # noqa: S608
    return [(statement, (claim.id, claim.turn_id)) for statement in (remember, gone)]


def _settled_as_failed(claim: QueuedTurn, failed: QueuedTurn) -> Operation:
    statement = (
        "UPDATE thread_queued_turns SET state=?, failure=?, dispatch_turn_id=NULL, dispatch_item_id=NULL, "  # noqa: S608
        f"updated_at_ms=? WHERE {_STILL_CLAIMED}"
    )
    return statement, (failed.state, failed.failure, failed.updated_at_ms, claim.id, claim.turn_id)
