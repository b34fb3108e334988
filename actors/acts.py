"""Acts: what clients do to a thread as a whole, loaded or not.

Renaming, archiving, forking and the like go through the thread's mailbox as everything else does, so they
are ordered with its turns and resumes. A thread that is not loaded gets an actor that loads itself quietly:
nobody is told, it does the act, and it leaves. An act is an object that knows how to decide; the actor
commits and publishes its decision like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from actors.effects import Decision
from actors.peer import Reply
from actors.state import ThreadState
from actors.step import StepContext
from agent.model.events import ResponseItem
from persistence.store import Store
from protocol.errors import InvalidRequest, RpcError


@dataclass(frozen=True, slots=True)
class ActContext:
    """What an act may use to decide.

    Attributes:
        step: time, ids, draining.
        store: for reading; what must be written goes into the decision.
        model_context: the thread's model context, loaded if it is not.
        clear_away: ends the actors of these threads and waits until they are gone; until the act's step is
            over they are not loaded again. Gives those that the act may take along.
    """

    step: StepContext
    store: Store
    model_context: Callable[[], Awaitable[list[ResponseItem]]]
    clear_away: Callable[[list[str]], Awaitable[list[str]]]


class Act(Protocol):
    """One act. Immutable; made by a handler from checked parameters."""

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """What to do. Reads if it must; changes nothing itself.

        Raises:
            RpcError: it is not possible; the client is told, nothing has happened.
        """
        ...

    def missing(self, thread_id: str) -> RpcError:
        """What to answer when the thread is nowhere."""
        ...


class OnStoredThread:
    """The base of acts that need a rollout, or will make one."""

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return no_rollout(thread_id)


def no_rollout(thread_id: str) -> RpcError:
    """The error for a thread that is nowhere on disk."""
    return InvalidRequest(f"no rollout found for thread id {thread_id}")


def archived(thread_id: str) -> RpcError:
    """The error for what an archived thread does not do."""
    return InvalidRequest(
        f"session {thread_id} is archived. Run `codex unarchive {thread_id}` to unarchive it first."
    )
