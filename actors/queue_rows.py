"""The queue as a value: what waits, what is claimed, and when the next may run. No I/O.

Rules:

1. A row is pending, failed, or claimed by the running turn; ``persistence.queue`` has the same on disk.
   Claimed are the row that the turn was made from and those that were added to steer it.
2. The queue drains one row at a time, only when nothing runs and nothing is claimed, only where clients know
   the thread as loaded, and from the head: a failed head blocks those behind it.
3. A claim ends when its user message is in the transcript, and by nothing but its own turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from actors.waiting_rows import WaitingRows
from persistence.queue import QueuedTurn
from protocol.queue_methods import QueuedTurnView, RowFailed, RowPending, RowStarted, RowStatus

if TYPE_CHECKING:
    from actors.state import ThreadState


@dataclass(frozen=True, slots=True)
class Queue:
    """A thread's queue.

    Attributes:
        rows: pending and failed ones in the order in which they run.
        claims: rows of the running turn whose messages are not in the transcript yet. Invariant: none of them
            is among ``rows``; each names the running turn and a user message of its own.
        paused: waits until it is told to go on (the ``pause`` setting after an interrupt).
    """

    rows: WaitingRows = field(default_factory=WaitingRows)
    claims: tuple[QueuedTurn, ...] = ()
    paused: bool = False

    def next_order(self) -> int:
        """The order of a row behind all others."""
        return max(row.order if row is not None else 0 for row in (self.rows.last, *self.claims)) + 1

    def first_order(self) -> int:
        """The order of a row before all others."""
        return min(row.order if row is not None else 1 for row in (self.rows.first, *self.claims)) - 1

    def with_row(self, row: QueuedTurn) -> Queue:
        """One more row, at the place its order says."""
        return replace(self, rows=self.rows.having(row))

    def without(self, row_id: str) -> Queue:
        """That row gone."""
        return replace(self, rows=self.rows.without(row_id))

    def replaced(self, row: QueuedTurn) -> Queue:
        """The row of the same id as it is now."""
        return replace(self, rows=self.rows.replaced(row))

    def reordered(self, ids: Sequence[str]) -> Queue | None:
        """The rows in that order, with orders behind all there are; None if ``ids`` are not the rows."""
        known = {row.id: row for row in self.rows}
        if len(ids) != len(known) or set(ids) != known.keys():
            return None
        # Numbers that no row has: rows can be given them one by one and none is in the way of another.
        rows = [replace(known[each], order=order) for order, each in enumerate(ids, self.next_order())]
        return replace(self, rows=WaitingRows(rows))

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
        return replace(self.without(row.id), claims=(*self.claims, taken))

    def claim_of(self, item_id: str) -> QueuedTurn | None:
        """The claim whose message that is."""
        return next((claim for claim in self.claims if claim.item_id == item_id), None)

    def without_claim(self, claim: QueuedTurn) -> Queue:
        """That claim ended."""
        return replace(self, claims=tuple(each for each in self.claims if each.id != claim.id))


def may_drain(state: ThreadState) -> bool:
    """Whether the head may become a turn now (rule 2)."""
    queue, head = state.queue, state.queue.rows.first
    return (
        state.announced
        and state.turn is None
        and not queue.claims
        and not queue.paused
        and head is not None
        and head.state == "pending"
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
