"""What a step decides to do, as data. Published in list order, all at once, after the commit.

Invariant: nothing in this list waits or can fail. What must be durable first is in ``Decision.lines``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from actors.messages import AnswerSlot
from actors.peer import Outgoing, Peer, Reply
from actors.state import ThreadState
from agent.events import Submission, TurnJob
from agent.model.events import ResponseItem
from persistence.database import Operation
from persistence.errors import StoreError
from persistence.rollout_lines import RolloutLine
from persistence.store import UNSET, Batch, Goal, ReadState, Unset
from protocol.base import Wire
from protocol.errors import RpcError
from protocol.lifecycle_methods import ThreadForkParams
from protocol.thread_methods import ThreadResumeResult


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a request with a result."""

    reply: Reply
    value: Wire


@dataclass(frozen=True, slots=True)
class AnswerResume:
    """Answer a resume; the result gets the ``seq`` that is the last at this place of the list."""

    reply: Reply
    value: ThreadResumeResult


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request with an error."""

    reply: Reply
    error: RpcError


@dataclass(frozen=True, slots=True)
class Notify:
    """Send a notification to whom its row in SERVER_NOTIFICATIONS says, or to one peer only."""

    method: str
    params: Wire
    only: Peer | None = None


@dataclass(frozen=True, slots=True)
class ShowStatus:
    """Send thread/status/changed if the status is another than the one sent last.

    ``joining``: who is being attached by this step and has no snapshot yet, so no use for a number.
    """

    state: ThreadState
    joining: Peer | None = None


@dataclass(frozen=True, slots=True)
class ShowGone:
    """Send thread/status/changed notLoaded: the thread leaves with this step."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Send one peer again what it missed, as it was sent."""

    messages: list[Outgoing]
    to: Peer


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send a server request to all subscribers, or again to one."""

    request_id: int
    method: str
    params: Wire
    only: Peer | None = None


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """A server request is settled: its id leads nowhere from now on."""

    request_id: int


@dataclass(frozen=True, slots=True)
class FillSlot:
    """Let the turn go on with an answer."""

    slot: AnswerSlot
    answer: Any


@dataclass(frozen=True, slots=True)
class GrowContext:
    """Items that enter the model context."""

    items: tuple[ResponseItem, ...]


@dataclass(frozen=True, slots=True)
class StartTurn:
    """Start the turn's task (again, when it ended just before a steer arrived)."""

    job: TurnJob


@dataclass(frozen=True, slots=True)
class SteerTurn:
    """Give the running turn another user message."""

    submission: Submission


@dataclass(frozen=True, slots=True)
class TellTurn:
    """Tell the model of the running turn something before its next response."""

    note: str


@dataclass(frozen=True, slots=True)
class CancelTurn:
    """Cancel the turn's task."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class ReloadContext:
    """The model context is another from now on: read it again when it is needed."""


@dataclass(frozen=True, slots=True)
class OpenFork:
    """Start a thread that was just made from this one; it answers the request.

    ``state`` and ``context``: of an ephemeral fork, which has nothing on disk to load.
    """

    thread_id: str
    params: ThreadForkParams
    reply: Reply
    state: ThreadState | None = None
    context: tuple[ResponseItem, ...] = ()


@dataclass(frozen=True, slots=True)
class EndActor:
    """Leave the loop after this step."""


Effect = (
    Answer
    | AnswerResume
    | Refuse
    | Notify
    | ShowStatus
    | ShowGone
    | Replay
    | SendRequest
    | ForgetRequest
    | FillSlot
    | GrowContext
    | StartTurn
    | SteerTurn
    | TellTurn
    | CancelTurn
    | ReloadContext
    | OpenFork
    | EndActor
)


@dataclass(slots=True)
class Decision:
    """The outcome of one step.

    Attributes:
        state: the thread's state from now on, if the commit succeeds.
        lines: rollout lines to append before anything is published.
        fsync: whether the rollout must reach the disk, not only the file, these lines and all before.
        create: path of the rollout file when these lines are its first.
        facts: columns of the thread's row that no line tells (name, repository).
        read_state: what the user has read, when it changes.
        queue: changes of the thread's queue, made by ``persistence.queue``.
        goal: the goal, when it changes on disk; None removes it.
        relocate: put the rollout away, bring it back, or remove it, in the same commit.
        also: descendants that are relocated with it.
        effects: what to publish, in order.
        first: what is committed and published before all this, and has happened even if this cannot be.
        otherwise: what is published instead where this cannot be committed; None: then nothing has happened.
            Only where to decide was to change the disk already.
    """

    state: ThreadState
    lines: list[RolloutLine] = field(default_factory=list)
    fsync: bool = False
    create: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    read_state: ReadState | None = None
    queue: list[Operation] = field(default_factory=list)
    goal: Goal | Unset | None = UNSET
    relocate: Literal["archive", "unarchive", "delete"] | None = None
    also: list[str] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    first: Decision | None = None
    otherwise: Callable[[StoreError], Decision] | None = None

    def notify(self, method: str, params: Wire, only: Peer | None = None) -> None:
        """Add a notification."""
        self.effects.append(Notify(method, params, only))

    def batch(self, now_ms: int) -> Batch:
        """What to commit."""
        return Batch(
            self.state.record.id,
            self.lines,
            fsync=self.fsync,
            create=self.create,
            facts=self.facts,
            read_state=self.read_state,
            queue=self.queue,
            goal=self.goal,
            relocate=self.relocate,
            also=self.also,
            now_ms=now_ms,
        )

    @property
    def durable(self) -> bool:
        """Whether there is anything to commit."""
        changes = self.lines or self.queue or self.facts or self.relocate or self.read_state
        return bool(changes) or self.goal is not UNSET

    def show_status(self) -> None:
        """Add the status as it is in ``state`` at this point of the list."""
        self.effects.append(ShowStatus(self.state))

    def answer(self, reply: Reply, value: Wire) -> None:
        """Add the answer to a request."""
        self.effects.append(Answer(reply, value))

    def refuse(self, reply: Reply, error: RpcError) -> None:
        """Add an error answer."""
        self.effects.append(Refuse(reply, error))


def no_change(state: ThreadState, *effects: Any) -> Decision:
    """A decision that only publishes."""
    return Decision(state, effects=list(effects))
