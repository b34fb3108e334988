"""What a thread's mailbox can hold. Messages with a ``reply`` are requests and are answered exactly once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from actors.peer import Peer, Reply
from agent.events import Question, TurnEvent, TurnOutcome
from protocol.base import Wire
from protocol.errors import RpcError
from protocol.lifecycle_methods import ThreadForkParams
from protocol.thread_methods import ThreadReadParams, ThreadResumeParams
from protocol.turn_methods import TurnInterruptParams, TurnStartParams, TurnSteerParams

if TYPE_CHECKING:
    from actors.acts import Act


@dataclass(frozen=True, slots=True)
class Started:
    """The first message of a thread made by thread/start or thread/fork: answer and announce it.

    ``fork``: the answer brings the turns along, unless the request did not want them. An ephemeral fork has
    none of its own on disk: they are those of ``fork_source``.
    """

    reply: Reply
    warnings: tuple[str, ...] = ()
    fork: ThreadForkParams | None = None
    fork_source: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """thread/resume. Its overrides apply only if clients do not know the thread as loaded."""

    reply: Reply
    params: ThreadResumeParams


@dataclass(frozen=True, slots=True)
class Read:
    """thread/read of a loaded thread."""

    reply: Reply
    params: ThreadReadParams


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """A page of history, read inside a step so that it agrees with the live turn.

    ``read`` gets the id of the running turn (or None) and returns the result to answer with.
    """

    reply: Reply
    read: Callable[[str | None], Awaitable[Wire]]
    unavailable: str
    """What an ephemeral thread answers; a fresh one answers as in ``not_yet``."""
    not_yet: str
    missing: RpcError | None = None
    """What to answer where the thread turns out to be gone."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """thread/unsubscribe."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A connection ended: the same as unsubscribing, with nobody to answer."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class TurnStart:
    """turn/start."""

    reply: Reply
    params: TurnStartParams


@dataclass(frozen=True, slots=True)
class TurnSteer:
    """turn/steer."""

    reply: Reply
    params: TurnSteerParams


@dataclass(frozen=True, slots=True)
class TurnInterrupt:
    """turn/interrupt."""

    reply: Reply
    params: TurnInterruptParams


@dataclass(frozen=True, slots=True)
class TurnPosted:
    """An event of a turn; of a turn that is over it is ignored."""

    turn_id: str
    event: TurnEvent


class AnswerSlot:
    """Where a turn waits for the answer to its question. What kind it is, the question says."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._answer: Any = None

    def fill(self, answer: Any) -> None:
        """Give the answer; the turn goes on. At most once."""
        assert not self._event.is_set(), "a question is answered once"
        self._answer = answer
        self._event.set()

    async def wait(self) -> Any:
        """The answer, however long it takes."""
        await self._event.wait()
        return self._answer


@dataclass(frozen=True, slots=True)
class TurnAsked:
    """A question of a turn, with the slot it waits at."""

    turn_id: str
    question: Question[Any]
    slot: AnswerSlot


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The turn task is over by itself. ``outcome`` None: it was cancelled, nothing is left to say."""

    turn_id: str
    outcome: TurnOutcome | None


@dataclass(frozen=True, slots=True)
class Answered:
    """A client's answer to a server request of this thread. ``peer_id``: the connection it came over."""

    peer_id: int
    request_id: int
    result: Any
    failed: bool


@dataclass(frozen=True, slots=True)
class Unattended:
    """Nobody was there to answer what is pending for as long as the policy waits."""


@dataclass(frozen=True, slots=True)
class GoalDue:
    """The thread is idle and has an active goal: it is time for its next turn."""


@dataclass(frozen=True, slots=True)
class Perform:
    """An act on the thread as a whole; see ``actors.acts``."""

    reply: Reply
    act: Act


@dataclass(frozen=True, slots=True)
class Drain:
    """The actor's own: the thread is idle and something waits in its queue."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Another thread's act puts this one away: interrupt what runs, and end."""


@dataclass(frozen=True, slots=True)
class DropRuntime:
    """There are too many runtimes and this one was used least recently; see ``actors.residency``."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Interrupt what runs, make it durable, and end."""


Message = (
    Started
    | Resume
    | Read
    | ReadHistory
    | Unsubscribe
    | PeerGone
    | TurnStart
    | TurnSteer
    | TurnInterrupt
    | TurnPosted
    | TurnAsked
    | TurnEnded
    | Answered
    | Unattended
    | GoalDue
    | Perform
    | Drain
    | DropRuntime
    | Leave
    | Shutdown
)
