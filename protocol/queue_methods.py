"""The durable queue: parameters, results and notification, in both wire shapes.

The canonical shape queues a whole ``turn/start`` (``turnStartParams`` in, ``queuedTurn`` out). The
reference's shape queues ``input`` and ``clientUserMessageId`` (``queuedSubmission`` out). The shape of a
request decides the shape of its answer; a row, once queued, is the same thing, and lists show the members
of both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.base import Wire
from protocol.thread_methods import U32
from protocol.threads import Turn
from protocol.turn_methods import TurnStartParams
from protocol.user_input import UserInput


class RowPending(Wire):
    """The row waits for its turn."""

    type: Literal["pending"] = "pending"


class RowFailed(Wire):
    """The row could not be made a turn; it blocks those behind it until it is deleted, updated or moved."""

    type: Literal["failed"] = "failed"
    error: str


class RowStarted(Wire):
    """The row is a turn already (spoold's own: the answer to an add or a delete that came late)."""

    type: Literal["started"] = "started"
    turn_id: str


RowStatus = Annotated[RowPending | RowFailed | RowStarted, Field(discriminator="type")]


class QueuedTurnView(Wire):
    """A row, with the members of both shapes.

    ``client_user_message_id`` is empty where the client gave none: the reference's shape has no other way.
    """

    id: str
    turn_start_params: dict[str, Any]
    status: RowStatus
    input: list[Any] = Field(default_factory=list)
    client_user_message_id: str = ""
    responsesapi_client_metadata: dict[str, Any] | None = None


WhenBusy = Literal["enqueue", "steer", "interrupt", "reject"]


class QueueAddParams(Wire):
    """``thread/queue/add``. ``when_busy`` (spoold's own) says what to do while a turn runs."""

    thread_id: str
    turn_start_params: TurnStartParams | None = None
    input: list[UserInput] | None = None
    client_user_message_id: str | None = None
    responsesapi_client_metadata: dict[str, Any] | None = None
    when_busy: WhenBusy = "enqueue"


class QueueAddResult(Wire):
    """One of the two, by the shape of the request. ``turn_id``: the message went into this turn at once."""

    queued_turn: QueuedTurnView | None = Field(default=None, exclude_if=lambda value: value is None)
    queued_submission: QueuedTurnView | None = Field(default=None, exclude_if=lambda value: value is None)
    turn_id: str | None = Field(default=None, exclude_if=lambda value: value is None)


class QueueListParams(Wire):
    """``thread/queue/list``; the cursor is a decimal offset."""

    thread_id: str
    cursor: str | None = None
    limit: int | None = U32


class QueueListResult(Wire):
    """``thread/queue/list``: rows in the order in which they run; of long ones, fewer than ``limit``.

    Only ``next_cursor`` says whether there are more.
    """

    data: list[QueuedTurnView]
    next_cursor: str | None = None


class QueueUpdateParams(Wire):
    """``thread/queue/update``: replaces what is said, in either shape; the rest of the row stays."""

    thread_id: str
    queued_submission_id: str | None = None
    queued_turn_id: str | None = None
    turn_start_params: TurnStartParams | None = None
    input: list[UserInput] | None = None
    responsesapi_client_metadata: dict[str, Any] | None = None


class QueueDeleteParams(Wire):
    """``thread/queue/delete``, by either name of the row's id."""

    thread_id: str
    queued_turn_id: str | None = None
    queued_submission_id: str | None = None


class QueueDeleteResult(Wire):
    """``deleted`` is false for a row that is not there; ``turn_id``: because it has become this turn."""

    deleted: bool
    turn_id: str | None = Field(default=None, exclude_if=lambda value: value is None)


class QueueReorderParams(Wire):
    """``thread/queue/reorder``: every row that waits, each once, in the new order."""

    thread_id: str
    queued_turn_ids: list[str] | None = None
    queued_submission_ids: list[str] | None = None


class QueueReorderResult(Wire):
    """``queued_turns`` for the canonical shape, nothing for the reference's."""

    queued_turns: list[QueuedTurnView] | None = Field(default=None, exclude_if=lambda value: value is None)


class QueueStartParams(Wire):
    """``thread/queue/start``: the head, or one row, now."""

    thread_id: str
    queued_submission_id: str | None = None
    queued_turn_id: str | None = None


class QueueStartResult(Wire):
    """The turn that the row became."""

    turn: Turn


class QueueChanged(Wire):
    """``thread/queue/changed``: the first of ``total`` rows: 100 of them, or those that fit into 1 MiB.

    ``next_cursor``: where ``thread/queue/list`` goes on, if these are not all.
    """

    thread_id: str
    queued_turns: list[QueuedTurnView]
    total: int
    next_cursor: str | None = Field(default=None, exclude_if=lambda value: value is None)
