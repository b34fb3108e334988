"""What a running turn tells its actor, and what it asks it.

A turn is a child task of its thread's actor and owns no shared state. It reports by posting these
events, in the order in which clients shall see them, and asks through ``TurnPort.ask``. The actor turns
an event into rollout lines, notifications and changes of its own state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from agent.model.events import ResponseItem
from protocol.dynamic_tools import DynamicToolCallResult, DynamicToolFunction
from protocol.goal_methods import GoalStatus
from protocol.items import CommandExecutionItem, DynamicToolCallItem, ThreadItem
from protocol.server_requests import Decision, UserInputQuestion, UserInputResult
from protocol.settings import ApprovalPolicy, ReasoningEffort, ReasoningSummary, SandboxPolicy
from protocol.threads import TokenCounts, TurnError
from protocol.user_input import UserInput


@dataclass(frozen=True, slots=True)
class Submission:
    """One user message on its way into a turn. ``item_id`` becomes the id of its item."""

    item_id: str
    input: list[UserInput]
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """An item began; ``item.started_at_ms`` is set."""

    item: ThreadItem


@dataclass(frozen=True, slots=True)
class ItemDelta:
    """An item grew. ``index`` is the summary or content index of the reasoning kinds."""

    kind: Literal["agentMessage", "reasoningSummary", "reasoningText", "commandOutput"]
    item_id: str
    delta: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """A reasoning item began a new summary part."""

    item_id: str
    index: int


@dataclass(frozen=True, slots=True)
class ItemCompleted:
    """An item ended. ``persist`` False: clients see it, history does not keep it (declined commands).

    ``context`` are the raw items that enter the model context together with it, in order, either
    before (``context_first``) or after the item's own rollout line.
    """

    item: ThreadItem
    persist: bool = True
    context: tuple[ResponseItem, ...] = ()
    context_first: bool = False


@dataclass(frozen=True, slots=True)
class ContextAppended:
    """Raw items that enter the model context with no item of their own (tool calls and outputs)."""

    items: tuple[ResponseItem, ...]


@dataclass(frozen=True, slots=True)
class UsageKnown:
    """A model response has been streamed and its calls still run: what it cost, should they be cut off."""

    response_id: str
    usage: TokenCounts


@dataclass(frozen=True, slots=True)
class ModelResponded:
    """A model response ended, after all tool items of that response."""

    response_id: str
    usage: TokenCounts | None


@dataclass(frozen=True, slots=True)
class ContextWindowFilled:
    """The model said that the context is too long: usage shows the whole window as used."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """A model request failed and is tried again; shown with ``willRetry``."""

    error: TurnError


@dataclass(frozen=True, slots=True)
class TurnWarning:
    """Something the user should know that does not end the turn."""

    message: str


TurnEvent = (
    ItemStarted
    | ItemDelta
    | ReasoningPart
    | ItemCompleted
    | ContextAppended
    | UsageKnown
    | ModelResponded
    | ContextWindowFilled
    | Retrying
    | TurnWarning
)


A = TypeVar("A")


class Question(Generic[A]):
    """What a turn asks its actor. ``A`` is what a good answer is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CommandApproval(Question[Decision]):
    """Ask the user about a command. The actor shows ``item`` as started together with the question."""

    item: CommandExecutionItem
    reason: str | None
    amendment: list[str]
    argv: tuple[str, ...] = ()
    """What runs if accepted; remembered when it is accepted for the session."""


@dataclass(frozen=True, slots=True)
class UserQuestions(Question[UserInputResult]):
    """Ask the user to choose or to say something. Clients see no item of it; ``call_id`` names the call."""

    call_id: str
    questions: list[UserInputQuestion]


@dataclass(frozen=True, slots=True)
class ClientToolCall(Question[DynamicToolCallResult]):
    """Let a client run its tool. The actor shows ``item`` as started together with the question."""

    item: DynamicToolCallItem


@dataclass(frozen=True, slots=True)
class GoalReport(Question[str]):
    """Read the thread's goal, or (``status``) say how it stands. The actor itself answers, with JSON text."""

    status: GoalStatus | None = None


@dataclass(frozen=True, slots=True)
class ApprovalFailed:
    """There is no answer that can be used: the client sent an error or nonsense, or nobody was there.

    What was asked for fails and the turn goes on, unless ``ends_turn``.
    """

    message: str
    ends_turn: bool = False


ApprovalAnswer = Decision | ApprovalFailed


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """How a turn ended by itself (an interrupted one is cancelled and has no outcome).

    ``cancelled_by_user``: the answer to an approval was ``cancel``; the turn is shown as interrupted.
    """

    error: TurnError | None = None
    cancelled_by_user: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the turn ends even if something new was said to it."""
        return self.error is not None or self.cancelled_by_user


class TurnPort(Protocol):
    """The turn's way to its actor."""

    async def post(self, event: TurnEvent) -> None:
        """Hand over one event; waits while the mailbox is full. Cancelled: not handed over."""
        ...

    async def ask(self, question: Question[A], /) -> A | ApprovalFailed:
        """Ask and wait for the answer, however long that takes. Cancelled: the question is withdrawn."""
        ...


@dataclass(slots=True)
class TurnSettings:
    """What a turn runs with, taken from the thread when it starts."""

    model: str
    cwd: str
    approval_policy: ApprovalPolicy
    sandbox_policy: SandboxPolicy
    effort: ReasoningEffort | None = None
    summary: ReasoningSummary | None = None
    base_instructions: str | None = None
    developer_instructions: str | None = None
    output_schema: Any = None
    approved_commands: frozenset[tuple[str, ...]] = frozenset()
    """Commands (argv) that the user accepted for the session, and accepted prefixes (below)."""
    approved_prefixes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that clients serve; ``namespace`` None: it belongs to none."""

    namespace: str | None
    tool: DynamicToolFunction


@dataclass(slots=True)
class TurnJob:
    """Everything a turn starts from.

    Attributes:
        thread_id, turn_id: its names.
        submissions: user messages to begin with (may be empty).
        context: the model context so far; the turn may append to this list (it is the turn's own copy).
        settings: see ``TurnSettings``.
        interrupted_before: the previous turn was interrupted: the model is told so.
        dynamic_tools: the tools that clients serve.
        has_goal: the thread works towards a goal; the model may say how it stands.
        opening_note: what the model is told first, unseen by the user: why there is a turn without a message.
    """

    thread_id: str
    turn_id: str
    submissions: list[Submission]
    context: list[ResponseItem]
    settings: TurnSettings
    interrupted_before: bool = False
    dynamic_tools: tuple[OfferedTool, ...] = ()
    has_goal: bool = False
    opening_note: str | None = None
