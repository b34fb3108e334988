"""The queue as a value: what waits, what is claimed, and when the next may run. No I/O.

Rules:

1. A row is pending, failed, or claimed by the running turn; ``persistence.queue`` has the same on disk.
2. The queue drains one row at a time, only when nothing runs and nothing is claimed, only where clients know
   the thread as loaded, and from the head: a failed head blocks those behind it.
3. A claim ends when its user message is in the transcript, and by nothing but its own turn.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from persistence.queue import QueuedTurn
from protocol.queue_methods import QueuedTurnView, RowFailed, RowPending, RowStarted, RowStatus

if TYPE_CHECKING:
    from actors.state import ThreadState

SHOWN = 100
"""Rows in a ``thread/queue/changed``; the rest is listed page by page."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A thread's queue.

    Attributes:
        rows: pending and failed ones in the order in which they run. Invariant: strictly growing ``order``.
        claimed: the row that the running turn was made from, until its message is in the transcript.
        paused: waits until it is told to go on (the ``pause`` setting after an interrupt).
    """

    rows: tuple[QueuedTurn, ...] = ()
    claimed: QueuedTurn | None = None
    paused: bool = False

    def next_order(self) -> int:
        """The order of a row behind all others."""
        last = self.rows[-1].order if self.rows else 0
        return max(last, self.claimed.order if self.claimed is not None else 0) + 1

    def first_order(self) -> int:
        """The order of a row before all others."""
        orders = [row.order for row in self.rows[:1]]
        return min([*orders, self.claimed.order if self.claimed is not None else 1]) - 1

    def find(self, row_id: str) -> QueuedTurn | None:
        """The waiting row of that id."""
        return next((row for row in self.rows if row.id == row_id), None)

    def with_row(self, row: QueuedTurn) -> Queue:
        """One more row, at the place its order says."""
        at = bisect(self.rows, row.order, key=lambda each: each.order)
        return replace(self, rows=(*self.rows[:at], row, *self.rows[at:]))

    def without(self, row_id: str) -> Queue:
        """That row gone."""
        # Mostly it is the head: found at once, however many wait behind it.
        at = next((index for index, row in enumerate(self.rows) if row.id == row_id), len(self.rows))
        return replace(self, rows=self.rows[:at] + self.rows[at + 1 :])

    def replaced(self, row: QueuedTurn) -> Queue:
        """The row of the same id as it is now."""
        return replace(self, rows=tuple(row if each.id == row.id else each for each in self.rows))

    def reordered(self, ids: Sequence[str]) -> Queue | None:
        """The rows in that order, sharing the orders they have; None if ``ids`` are not the rows."""
        known = {row.id: row for row in self.rows}
        if len(ids) != len(known) or set(ids) != known.keys():
            return None
        orders = [row.order for row in self.rows]
        rows = tuple(replace(known[each], order=order) for each, order in zip(ids, orders, strict=True))
        return replace(self, rows=rows)

    def claim(self, row: QueuedTurn, turn_id: str, item_id: str, now: int) -> Queue:
        """The row as the running turn's."""
        taken = replace(
            row,
            state="dispatching",
            failure=None,
            turn_id=turn_id,
            item_id=item_id,
            updated_at_ms=now,
        )
        return replace(self.without(row.id), claimed=taken)


def may_drain(state: ThreadState) -> bool:
    """Whether the head may become a turn now (rule 2)."""
    queue = state.queue
    return (
        state.announced
        and state.turn is None
        and queue.claimed is None
        and not queue.paused
        and bool(queue.rows)
        and queue.rows[0].state == "pending"
    )


def view(row: QueuedTurn, started_as: str | None = None) -> QueuedTurnView:
    """The row as clients see it; ``started_as``: the turn it became."""
    status: RowStatus = RowPending()
    if started_as is not None:
        status = RowStarted(turn_id=started_as)
    elif row.state == "failed":
        status = RowFailed(error=row.failure or "")
    # What another version or a damaged disk has left must be visible, so that it can be deleted.
    said, client_id = row.params.get("input"), row.params.get("clientUserMessageId")
    metadata = row.params.get("responsesapiClientMetadata")
    return QueuedTurnView(
        id=row.id,
        turn_start_params=row.params,
        status=status,
        input=said if isinstance(said, list) else [],
        client_user_message_id=client_id if isinstance(client_id, str) else "",
        responsesapi_client_metadata=metadata if isinstance(metadata, dict) else None,
    )
