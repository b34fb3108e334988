"""Pages of a queue as clients see them, bounded in rows and in bytes.

Everybody who is attached is told of every change. A row may be as long as a message that the daemon reads, so
what a change shows is bounded like everything else: else one client's long rows would fill the outboxes of
the others. A page ends before the row that does not fit any more, and its cursor says where to go on.

Rejected: rows with their text cut short. A client that edits a row sends back what it was shown.
"""

from __future__ import annotations

from actors.queue_rows import view
from actors.waiting_rows import WaitingRows
from persistence.queue import QueuedTurn
from protocol.base import encode
from protocol.errors import InvalidRequest
from protocol.queue_methods import QueueChanged, QueuedTurnView, QueueListParams, QueueListResult

MAX_ROWS = 100
DEFAULT_ROWS = 25

PAGE_BYTES = 1024 * 1024
"""What a page may take as JSON."""

AROUND = 512
"""More than a row takes as JSON besides its message, and than a page does besides its rows."""


def change_of(thread_id: str, rows: WaitingRows) -> QueueChanged:
    """What subscribers are told of a changed queue. Shows no row where the first is longer than a page."""
    shown = _fitting(rows.page(0, MAX_ROWS))
    return QueueChanged(
        thread_id=thread_id, queued_turns=shown, total=len(rows), next_cursor=_cursor(len(shown), rows)
    )


def listed(params: QueueListParams, rows: WaitingRows) -> QueueListResult:
    """The page that a client asks for. A row that is longer than a page is one for itself.

    Raises:
        InvalidRequest: the cursor is none.
    """
    offset = _offset(params.cursor)
    limit = DEFAULT_ROWS if params.limit is None else min(max(1, params.limit), MAX_ROWS)
    found = rows.page(offset, limit)
    # Without a row in it a page would end where it begins, and the list nowhere.
    shown = _fitting(found) or [view(row) for row in found[:1]]
    return QueueListResult(data=shown, next_cursor=_cursor(offset + len(shown), rows))


def _fitting(rows: list[QueuedTurn]) -> list[QueuedTurnView]:
    """As many of the first rows as fit into a page."""
    left = PAGE_BYTES - AROUND
    shown: list[QueuedTurnView] = []
    for row in rows:
        # Its message is in it in both shapes.
        left -= 2 * len(encode(row.params)) + AROUND
        if left < 0:
            break
        shown.append(view(row))
    return shown


def _cursor(end: int, rows: WaitingRows) -> str | None:
    return str(end) if end < len(rows) else None


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise InvalidRequest(f"invalid cursor: {cursor}")
    return int(cursor)
