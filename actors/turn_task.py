"""The task of one turn: a child of its actor that reports through the mailbox and owns nothing shared."""

from __future__ import annotations

import logging
from typing import Protocol, cast

import trio

from actors.mailbox import Mailbox
from actors.messages import AnswerSlot, Message, TurnAsked, TurnEnded, TurnPosted
from agent.events import (
    A,
    ApprovalFailed,
    Question,
    Submission,
    TurnEvent,
    TurnJob,
    TurnOutcome,
    TurnPort,
)
from agent.turn import TurnControl
from protocol.threads import TurnError

log = logging.getLogger(__name__)


class TurnRunner(Protocol):
    """Runs turns of one loaded thread and owns what outlives them (terminals). Wired in ``spoold``."""

    async def run_turn(
        self, job: TurnJob, provider: str, port: TurnPort, control: TurnControl
    ) -> TurnOutcome:
        """Run one turn to its end. Cancelled: the model stream is closed, nothing more is posted."""
        ...

    def bind(self, nursery: trio.Nursery) -> None:
        """Where what outlives a turn (terminals) lives; cancelling it kills that."""
        ...

    @property
    def busy(self) -> bool:
        """Whether something that has outlived its turn still runs."""
        ...

    def drop(self) -> None:
        """Let go of everything that the next turn can make again. Not called while busy or in a turn."""
        ...


class TurnTask:
    """One run of a turn.

    Attributes:
        turn_id: the turn.
    """

    def __init__(self, job: TurnJob, provider: str, mailbox: Mailbox[Message], runner: TurnRunner) -> None:
        self.turn_id = job.turn_id
        self._job = job
        self._provider = provider
        self._mailbox = mailbox
        self._runner = runner
        self._control = TurnControl()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Run the turn and post its end, whatever happens; an unexpected error fails this turn only."""
        outcome: TurnOutcome | None = None
        try:
            with self._scope:
                outcome = await self._runner.run_turn(
                    self._job, self._provider, _Port(self.turn_id, self._mailbox), self._control
                )
        except Exception:
            log.exception("turn %s of thread %s failed", self.turn_id, self._job.thread_id)
            outcome = TurnOutcome(
                error=TurnError(message="the turn failed inside the server", codex_error_info="other")
            )
        self._mailbox.put_always(TurnEnded(self.turn_id, outcome))

    def steer(self, submission: Submission) -> None:
        """Give the turn another user message. If it has just ended, ``take_unconsumed`` finds it."""
        self._control.steer(submission)

    def take_unconsumed(self) -> list[Submission]:
        """User messages that came too late for this run."""
        left, self._control.unconsumed = self._control.unconsumed, []
        return left

    def tell(self, note: str) -> None:
        """Tell the model something before its next response in this turn, if there is one."""
        self._control.notes.append(note)

    def cancel(self) -> None:
        """Stop the turn; it posts nothing more that counts."""
        self._scope.cancel()


class _Port:
    """The turn's side of the mailbox."""

    def __init__(self, turn_id: str, mailbox: Mailbox[Message]) -> None:
        self._turn_id = turn_id
        self._mailbox = mailbox

    async def post(self, event: TurnEvent) -> None:
        await self._mailbox.post(TurnPosted(self._turn_id, event))

    async def ask(self, question: Question[A]) -> A | ApprovalFailed:
        slot = AnswerSlot()
        await self._mailbox.post(TurnAsked(self._turn_id, question, slot))
        # What a question may be answered with is the business of the actor's table of kinds.
        return cast("A | ApprovalFailed", await slot.wait())
