"""Requests that the server makes of its clients. The first answer wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, Field

from protocol.base import Wire
from protocol.dynamic_tools import DynamicToolCallParams, DynamicToolCallResult


class CommandApprovalParams(Wire):
    """``item/commandExecution/requestApproval``. ``reason`` is left out when there is none."""

    kind: Literal["command"] = "command"
    thread_id: str
    turn_id: str
    item_id: str
    started_at_ms: int
    environment_id: str = "local"
    reason: str | None = Field(default=None, exclude_if=lambda value: value is None)
    command: str
    cwd: str
    command_actions: list[dict[str, Any]]
    proposed_execpolicy_amendment: list[str]
    available_decisions: list[Any]


class ExecpolicyAmendment(Wire):
    """``{"execpolicy_amendment": [...]}`` (snake_case on the wire)."""

    model_config = ConfigDict(alias_generator=None)
    execpolicy_amendment: list[str]


class AcceptWithAmendment(Wire):
    """Accept, and do not ask again for commands that begin like this."""

    accept_with_execpolicy_amendment: ExecpolicyAmendment


Decision = Literal["accept", "acceptForSession", "decline", "cancel"] | AcceptWithAmendment


class CommandApprovalResult(Wire):
    """The answer to a command approval."""

    decision: Decision


class UserInputOption(Wire):
    """One answer to choose."""

    label: str
    description: str


class UserInputQuestion(Wire):
    """One question. ``is_other``: the user may also write an answer of his own."""

    id: str
    header: str
    question: str
    is_other: bool = True
    is_secret: bool = False
    options: list[UserInputOption] | None = None


class UserInputParams(Wire):
    """``item/tool/requestUserInput``: questions of the model. There is no item with ``item_id``."""

    thread_id: str
    turn_id: str
    item_id: str
    questions: list[UserInputQuestion]
    is_blocking: bool = True
    auto_resolution_ms: int | None = None


class UserInputAnswer(Wire):
    """What the user chose or wrote."""

    answers: list[str]


class UserInputResult(Wire):
    """The answers, by the id of their question."""

    answers: dict[str, UserInputAnswer]


@dataclass(frozen=True, slots=True)
class ServerRequestRow:
    """One row of the table of server requests."""

    params: type[Wire]
    result: type[Wire]


SERVER_REQUESTS: dict[str, ServerRequestRow] = {
    "item/commandExecution/requestApproval": ServerRequestRow(CommandApprovalParams, CommandApprovalResult),
    "item/tool/requestUserInput": ServerRequestRow(UserInputParams, UserInputResult),
    "item/tool/call": ServerRequestRow(DynamicToolCallParams, DynamicToolCallResult),
}
