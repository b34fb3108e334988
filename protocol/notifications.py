"""Server notifications: the parameters of each, and who gets it.

``SERVER_NOTIFICATIONS`` is the table: every notification spoold sends is a row. ``broadcast`` goes to
every initialised connection, the others to the subscribers of their thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.base import Wire
from protocol.goal_methods import GoalUpdated
from protocol.items import ThreadItem
from protocol.jsonrpc import RequestId
from protocol.lifecycle_methods import NameUpdated, ReadStateChanged
from protocol.queue_methods import QueueChanged
from protocol.settings import ThreadSettings
from protocol.threads import Thread, ThreadStatus, TokenUsage, Turn, TurnError


class ThreadStarted(Wire):
    """``thread/started``."""

    thread: Thread


class StatusChanged(Wire):
    """``thread/status/changed``; always before what it announces."""

    thread_id: str
    status: ThreadStatus


class ThreadNote(Wire):
    """Notifications that say only which thread."""

    thread_id: str


class SettingsUpdated(Wire):
    """``thread/settings/updated``."""

    thread_id: str
    thread_settings: ThreadSettings


class TokenUsageUpdated(Wire):
    """``thread/tokenUsage/updated``, after every model response."""

    thread_id: str
    turn_id: str
    token_usage: TokenUsage


class TurnNote(Wire):
    """``turn/started`` and ``turn/completed``."""

    thread_id: str
    turn: Turn


class ItemStartedNote(Wire):
    """``item/started``."""

    item: ThreadItem
    thread_id: str
    turn_id: str
    started_at_ms: int


class ItemCompletedNote(Wire):
    """``item/completed``."""

    item: ThreadItem
    thread_id: str
    turn_id: str
    content_token_count: int | None = None
    completed_at_ms: int


class DeltaNote(Wire):
    """Text that an item grew by: agent messages and command output."""

    thread_id: str
    turn_id: str
    item_id: str
    delta: str


class ReasoningPartAdded(Wire):
    """``item/reasoning/summaryPartAdded``."""

    thread_id: str
    turn_id: str
    item_id: str
    summary_index: int


class ReasoningDelta(Wire):
    """``item/reasoning/summaryTextDelta``."""

    thread_id: str
    turn_id: str
    item_id: str
    delta: str
    summary_index: int


class ReasoningTextDelta(Wire):
    """``item/reasoning/textDelta``."""

    thread_id: str
    turn_id: str
    item_id: str
    delta: str
    content_index: int


class ErrorNote(Wire):
    """``error``: a turn failed, or (``will_retry``) a model request is tried again."""

    error: TurnError
    will_retry: bool
    thread_id: str
    turn_id: str


class WarningNote(Wire):
    """``warning``; without a thread id it concerns the whole daemon."""

    thread_id: str | None = None
    message: str


class RequestResolved(Wire):
    """``serverRequest/resolved``: the question was answered or withdrawn."""

    thread_id: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """One row of the table."""

    params: type[Wire]
    broadcast: bool = False


SERVER_NOTIFICATIONS: dict[str, NotificationRow] = {
    "thread/started": NotificationRow(ThreadStarted, broadcast=True),
    "thread/status/changed": NotificationRow(StatusChanged, broadcast=True),
    "thread/closed": NotificationRow(ThreadNote, broadcast=True),
    "thread/archived": NotificationRow(ThreadNote, broadcast=True),
    "thread/unarchived": NotificationRow(ThreadNote, broadcast=True),
    "thread/deleted": NotificationRow(ThreadNote, broadcast=True),
    "thread/reverted": NotificationRow(ThreadNote, broadcast=True),
    "thread/name/updated": NotificationRow(NameUpdated, broadcast=True),
    "thread/queue/changed": NotificationRow(QueueChanged),
    "thread/readState/changed": NotificationRow(ReadStateChanged),
    "thread/goal/updated": NotificationRow(GoalUpdated, broadcast=True),
    "thread/goal/cleared": NotificationRow(ThreadNote, broadcast=True),
    "thread/settings/updated": NotificationRow(SettingsUpdated),
    "thread/tokenUsage/updated": NotificationRow(TokenUsageUpdated),
    "turn/started": NotificationRow(TurnNote),
    "turn/completed": NotificationRow(TurnNote),
    "item/started": NotificationRow(ItemStartedNote),
    "item/completed": NotificationRow(ItemCompletedNote),
    "item/agentMessage/delta": NotificationRow(DeltaNote),
    "item/commandExecution/outputDelta": NotificationRow(DeltaNote),
    "item/reasoning/summaryPartAdded": NotificationRow(ReasoningPartAdded),
    "item/reasoning/summaryTextDelta": NotificationRow(ReasoningDelta),
    "item/reasoning/textDelta": NotificationRow(ReasoningTextDelta),
    "error": NotificationRow(ErrorNote),
    "warning": NotificationRow(WarningNote),
    "serverRequest/resolved": NotificationRow(RequestResolved),
}
