"""The runtime of one loaded thread: what its turns need, and what can be made again.

That is the model context, the task of the turn, and what the runner holds for turns to come (terminals, MCP
servers). A thread that is only watched has none of it. When it goes is the business of ``actors.residency``;
that nothing is lost by it, the actor's.

The effects that concern a turn are carried out here, as those that concern clients are in the publisher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from actors.effects import CancelTurn, Effect, GrowContext, ReloadContext, StartTurn, SteerTurn, TellTurn
from actors.mailbox import Mailbox
from actors.messages import Message
from actors.residency import Residency
from actors.turn_task import TurnRunner, TurnTask
from agent.events import Submission
from agent.model.events import ResponseItem
from persistence.store import Store


class ThreadRuntime:
    """See the module docstring.

    Args:
        mailbox: where turns report.
        idle_seconds: how long it stays after its last use.
        on_use: called after every use.
        context: the model context if it is known; else it is read when a turn needs it.

    Attributes:
        residency: when it goes.
        runner: runs the turns.
    """

    def __init__(
        self,
        thread_id: str,
        store: Store,
        runner: TurnRunner,
        mailbox: Mailbox[Message],
        *,
        idle_seconds: float,
        on_use: Callable[[], None],
        context: Sequence[ResponseItem] | None,
    ) -> None:
        self.residency = Residency(idle_seconds)
        self.runner = runner
        self._thread_id = thread_id
        self._store = store
        self._mailbox = mailbox
        self._on_use = on_use
        # None until the first turn needs it. Invariant: grows only by GrowContext.
        self._context = None if context is None else list(context)
        # Of the last turn, even if that has ended. Invariant: set while a turn runs.
        self._task: TurnTask | None = None
        self._nursery: trio.Nursery | None = None

    def bind(self, nursery: trio.Nursery) -> None:
        """Where its tasks live. Before any effect."""
        self._nursery = nursery
        self.runner.bind(nursery)

    @property
    def context_in_memory(self) -> list[ResponseItem]:
        """The model context, if it is in memory, as it is while a turn runs; else nothing."""
        return self._context or []

    async def model_context(self) -> list[ResponseItem]:
        """The model context, for a turn.

        Raises:
            StoreError: it could not be read.
        """
        if self._context is None:
            self._context = (await self._store.resume_state(self._thread_id)).context
        self.use()
        return self._context

    def take_unconsumed(self, turn_id: str) -> list[Submission]:
        """What was said to this turn when it had just ended.

        The end of an old turn may come when a new one runs already: what was said to that stays.
        """
        task = self._task
        return task.take_unconsumed() if task is not None and task.turn_id == turn_id else []

    def use(self) -> None:
        """A turn needs it, or has needed it until now."""
        self.residency.used(trio.current_time())
        self._on_use()

    def keep(self) -> None:
        """It cannot go yet: for another idle time. Nobody has used it."""
        self.residency.used(trio.current_time())

    def drop(self) -> None:
        """Let go of everything. Not while a turn runs, or the runner is busy."""
        self._context = None
        self._task = None
        self.runner.drop()
        self.residency.dropped()

    def carry_out(self, effect: Effect, provider: str) -> bool:
        """Carry out one effect; False: it does not concern the turn. Nothing waits.

        ``provider``: the model provider of a turn that starts.
        """
        match effect:
            case GrowContext(items=items):
                if self._context is not None:
                    self._context.extend(items)
            case ReloadContext():
                self._context = None
            case StartTurn(job=job):
                assert self._nursery is not None
                self._task = TurnTask(job, provider, self._mailbox, self.runner)
                self._nursery.start_soon(self._task.run)
            case SteerTurn(submission=submission):
                assert self._task is not None
                self._task.steer(submission)
            case TellTurn(note=note):
                if self._task is not None:
                    self._task.tell(note)
            case CancelTurn(turn_id=turn_id):
                if self._task is not None and self._task.turn_id == turn_id:
                    self._task.cancel()
            case _:
                return False
        return True
