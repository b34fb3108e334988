"""Items: what a turn consists of, as clients see it.

``startedAtMs`` and ``completedAtMs`` are Unix milliseconds; the latter is null while the item runs,
both are null in the history of threads recorded without them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.base import Wire
from protocol.user_input import UserInput


class Item(Wire):
    """What every kind of item has."""

    id: str
    started_at_ms: int | None = None
    completed_at_ms: int | None = None


class UserMessageItem(Item):
    """A user's message; ``client_id`` echoes the client's ``clientUserMessageId``."""

    type: Literal["userMessage"] = "userMessage"
    client_id: str | None = None
    content: list[UserInput]


class AgentMessageItem(Item):
    """A message of the model. ``phase`` is ``commentary`` for text that is not the final answer."""

    type: Literal["agentMessage"] = "agentMessage"
    text: str = ""
    phase: str | None = None
    moderation: Any = None
    memory_citation: Any = None
    delivery: Any = None
    questions: Any = None


class ReasoningItem(Item):
    """The model's reasoning: summary parts, and raw content where the provider shows it."""

    type: Literal["reasoning"] = "reasoning"
    summary: list[str] = Field(default_factory=list)
    content: list[str] = Field(default_factory=list)


class UnknownAction(Wire):
    """A command that was not taken apart further."""

    type: Literal["unknown"] = "unknown"
    command: str


CommandStatus = Literal["inProgress", "completed", "failed", "declined"]


class CommandExecutionItem(Item):
    """A shell command. ``source`` is ``agent`` while it waits for approval, then ``unifiedExecStartup``.

    ``duration_ms`` is milliseconds; ``aggregated_output`` is None where there was none.
    """

    type: Literal["commandExecution"] = "commandExecution"
    command: str
    cwd: str
    process_id: str | None = None
    source: str = "agent"
    status: CommandStatus = "inProgress"
    command_actions: list[dict[str, Any]] = Field(default_factory=list)
    aggregated_output: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    plugin_id: str | None = None
    script_path: str | None = None


class FileChangeItem(Item):
    """Files changed by a patch: ``changes`` are ``{path, kind: {type}, diff}``."""

    type: Literal["fileChange"] = "fileChange"
    changes: list[dict[str, Any]]
    status: CommandStatus


class DynamicToolCallItem(Item):
    """A tool that a client serves."""

    type: Literal["dynamicToolCall"] = "dynamicToolCall"
    namespace: str | None = None
    tool: str
    arguments: Any = None
    status: Literal["inProgress", "completed", "failed"]
    content_items: list[Any] | None = None
    success: bool | None = None
    duration_ms: int | None = None


class ContextCompactionItem(Item):
    """The place where the history was compacted."""

    type: Literal["contextCompaction"] = "contextCompaction"


class EnteredReviewModeItem(Item):
    """The start of a review."""

    type: Literal["enteredReviewMode"] = "enteredReviewMode"
    review: str


class ExitedReviewModeItem(Item):
    """The end of a review."""

    type: Literal["exitedReviewMode"] = "exitedReviewMode"
    review: str


ThreadItem = Annotated[
    UserMessageItem
    | AgentMessageItem
    | ReasoningItem
    | CommandExecutionItem
    | FileChangeItem
    | DynamicToolCallItem
    | ContextCompactionItem
    | EnteredReviewModeItem
    | ExitedReviewModeItem,
    Field(discriminator="type"),
]
