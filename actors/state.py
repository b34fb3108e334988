"""The state of one thread, as values.

A step never changes a state in place: it makes the next one and hands it back, and the actor adopts it
only after the commit. So a failed commit leaves nothing to undo.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.messages import AnswerSlot
from actors.peer import Peer
from actors.queue_rows import Queue
from agent.events import OfferedTool, Question, Submission, TurnSettings, UsageKnown
from persistence.store import Goal, ReadState, ThreadRecord
from protocol.base import Wire
from protocol.items import AgentMessageItem
from protocol.threads import (
    Active,
    ActiveFlag,
    Idle,
    NotLoaded,
    SystemErrorStatus,
    ThreadStatus,
    TokenCounts,
    TokenUsage,
)

DEFAULT_CONTEXT_WINDOW = 258_400
"""Tokens, for models whose window nobody told us."""


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """The turn that runs."""

    id: str
    started_at_ms: int
    last_message: AgentMessageItem | None = None
    """The final answer so far: commentary does not count."""
    uncounted: UsageKnown | None = None
    """What a response cost whose calls still run; counted with them, or when they are cut off."""
    output_schema: Any = None
    """Of this turn only; it must outlive a restart of the turn's task."""
    untaken: tuple[Submission, ...] = ()
    """User messages that were accepted and are not in the transcript yet."""
    for_goal: bool = False
    """The goal was active at some moment of it: what it costs counts."""
    called_tool: bool = False
    """The model has called a tool in it."""
    continues_goal: bool = False
    """The daemon has started it by itself."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A question to the clients that is not answered yet.

    ``asked``: ids of the connections that got it; an answer counts from these only.
    """

    request_id: int
    turn_id: str
    method: str
    params: Wire
    question: Question[Any]
    slot: AnswerSlot
    flag: ActiveFlag | None
    asked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the next turn runs with."""

    model: str
    model_provider: str
    cwd: str
    turn: TurnSettings
    context_window: int = DEFAULT_CONTEXT_WINDOW
    service_tier: str | None = None
    collaboration_mode: str = "default"


@dataclass(frozen=True, slots=True)
class ThreadState:
    """One thread.

    Attributes:
        record: identity and index columns; ``record.path`` is where the rollout is or will be.
        ephemeral: never on disk.
        materialised: the rollout file exists.
        subscribers: who gets turn and item events, by peer id.
        turn: the running turn. Invariant: at most one, and ``pending`` is empty without one.
        pending: unanswered server requests, oldest first.
        failed: the last turn failed and no other has started (``systemError``).
        interrupted_before: the last turn was interrupted: the model is told so in the next.
        usage: token counters; ``usage_turn`` is the turn of the last count.
        queue: turns that wait. Invariant: a claimed row belongs to the running turn.
        read_state: what the user has read; None until there is a rollout.
        announced: clients know that the thread is loaded. One that was loaded only to be renamed or
            archived is not, and counts as not loaded everywhere.
        dynamic_tools: the tools that its clients serve.
        goal: what the thread works towards, with what was used for it so far.
        idle_goal_turns: how many turns of the goal in a row have called no tool.
    """

    record: ThreadRecord
    settings: Settings
    ephemeral: bool = False
    materialised: bool = False
    subscribers: dict[int, Peer] = field(default_factory=dict)
    turn: RunningTurn | None = None
    pending: tuple[PendingRequest, ...] = ()
    failed: bool = False
    interrupted_before: bool = False
    usage: TokenUsage | None = None
    usage_turn: str | None = None
    read_state: ReadState | None = None
    queue: Queue = field(default_factory=Queue)
    announced: bool = True
    base_instructions: str | None = None
    raw_events: bool = False
    dynamic_tools: tuple[OfferedTool, ...] = ()
    goal: Goal | None = None
    idle_goal_turns: int = 0

    @property
    def status(self) -> ThreadStatus:
        """What clients are told; a function of the state, so it cannot disagree with it."""
        if not self.announced:
            return NotLoaded()
        if self.turn is not None:
            flags: list[ActiveFlag] = []
            for request in self.pending:
                if request.flag is not None and request.flag not in flags:
                    flags.append(request.flag)
            return Active(active_flags=flags)
        return SystemErrorStatus() if self.failed else Idle()

    @property
    def turn_id(self) -> str | None:
        """The running turn's id."""
        return None if self.turn is None else self.turn.id

    @property
    def path(self) -> Path | None:
        """The rollout's path, None for an ephemeral thread."""
        return None if self.ephemeral else self.record.path

    def check_invariants(self) -> None:
        """Raise AssertionError where a rule of this page is broken; the actor calls it after each step."""
        assert self.turn is not None or not self.pending, "questions belong to a running turn"
        assert self.announced or (self.turn is None and not self.subscribers), "a quiet thread does nothing"
        for claim in self.queue.claims:
            assert self.turn is not None, "a claim outlived its turn"
            assert claim.turn_id == self.turn.id, "a claim of another turn"
        assert not (self.ephemeral and self.materialised), "an ephemeral thread is never on disk"
        for request in self.pending:
            assert self.turn is not None
            assert request.turn_id == self.turn.id, "a question outlived its turn"
        ids = [request.request_id for request in self.pending]
        assert len(ids) == len(set(ids)), "one id, one question"

    def subscribed(self, peer: Peer) -> ThreadState:
        """The state with one more subscriber."""
        return replace(self, subscribers={**self.subscribers, peer.id: peer})

    def unsubscribed(self, peer_id: int) -> ThreadState:
        """The state without that subscriber."""
        return replace(
            self, subscribers={key: peer for key, peer in self.subscribers.items() if key != peer_id}
        )


def add_usage(usage: TokenUsage | None, last: TokenCounts, window: int | None) -> TokenUsage:
    """The thread's counters after one more model response."""
    total = last if usage is None else usage.total.plus(last)
    return TokenUsage(total=total, last=last, model_context_window=window)


def change_record(state: ThreadState, **changes: Any) -> ThreadState:
    """The state with some columns of its record changed."""
    return replace(state, record=replace(state.record, **changes))
