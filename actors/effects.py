"""What a step decides to do, as data. Published in list order, all at once, after the commit.

Invariant: nothing in this list waits or can fail. What must be durable first is in ``Decision.lines``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.messages import AnswerSlot
from actors.peer import Outgoing, Peer, Reply
from actors.state import ThreadState
from agent.events import ApprovalAnswer, Submission, TurnJob
from agent.model.events import ResponseItem
from persistence.rollout_lines import RolloutLine
from protocol.base import Wire
from protocol.errors import RpcError


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a request with a result."""

    reply: Reply
    value: Wire


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
    """Send thread/status/changed if the status is another than the one sent last."""

    state: ThreadState


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
    answer: ApprovalAnswer


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
class CancelTurn:
    """Cancel the turn's task."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class EndActor:
    """Leave the loop after this step."""


Effect = (
    Answer
    | Refuse
    | Notify
    | ShowStatus
    | Replay
    | SendRequest
    | ForgetRequest
    | FillSlot
    | GrowContext
    | StartTurn
    | SteerTurn
    | CancelTurn
    | EndActor
)


@dataclass(slots=True)
class Decision:
    """The outcome of one step.

    Attributes:
        state: the thread's state from now on, if the commit succeeds.
        lines: rollout lines to append before anything is published.
        fsync: whether they must reach the disk, not only the file.
        create: path of the rollout file when these lines are its first.
        effects: what to publish, in order.
    """

    state: ThreadState
    lines: list[RolloutLine] = field(default_factory=list)
    fsync: bool = False
    create: Path | None = None
    effects: list[Effect] = field(default_factory=list)

    def notify(self, method: str, params: Wire, only: Peer | None = None) -> None:
        """Add a notification."""
        self.effects.append(Notify(method, params, only))

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
