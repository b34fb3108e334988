"""The actor of one loaded thread.

One Trio task, one mailbox, one step at a time. A step takes a message and

1. *decides*: a function of (state, message) gives the next state, the lines for the rollout, and the
   effects to publish (``actors.decider``);
2. *commits*: awaits the store; if that fails, nothing was published and the state is as before;
3. *publishes*: hands replies and notifications to the outboxes (``publisher``), starts and cancels the
   turn (``thread_runtime``). No await.

The actor loads itself as its first step, so a second resume that arrives meanwhile waits in the mailbox
and finds the thread loaded. It ends through its supervisor (``retire``), which removes it in the same
instant in which its mailbox is found empty: no message is lost to a stopping actor.

Rejected: one task per request with a lock per thread (order is then the lock's, not the arrival's), and
notifications sent from the turn's task (a snapshot could then not be atomic).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Sequence
from functools import partial

import trio

from actors import queue_claims, turns
from actors.acts import ActContext
from actors.deadlines import Deadlines
from actors.decider import Decider
from actors.effects import (
    Answer,
    AnswerResume,
    Decision,
    Effect,
    EndActor,
    OpenFork,
    Refuse,
)
from actors.loading import Load, Loader
from actors.mailbox import Mailbox
from actors.messages import (
    Drain,
    DropRuntime,
    GoalDue,
    Leave,
    Message,
    Perform,
    Resume,
    Shutdown,
    Started,
    TurnPosted,
    Unattended,
)
from actors.peer import Outgoing, Peer
from actors.publisher import Publisher
from actors.refusals import missing, refuse
from actors.state import ThreadState
from actors.step import StepContext
from actors.thread_host import ThreadHost
from actors.thread_runtime import ThreadRuntime
from actors.turn_task import TurnRunner
from agent.events import ItemDelta
from agent.model.events import ResponseItem
from persistence.config import Unattended as UnattendedPolicy
from persistence.errors import StoreError
from persistence.store import Batch, Store
from protocol.errors import InternalError, InvalidRequest, RpcError
from protocol.threads import NotLoaded, SystemErrorStatus, TurnError

log = logging.getLogger(__name__)

LAST_STEP_SECONDS = 5.0
"""How long a broken actor may take to record the end of its turn."""


class ThreadActor:
    """See the module docstring.

    Attributes:
        thread_id: the thread.
        mailbox: where everything for the thread goes.
        state: what has been published; None until the first step has loaded it.
        finished: set when the task has ended and its children are gone.
    """

    def __init__(
        self,
        thread_id: str,
        host: ThreadHost,
        store: Store,
        step: StepContext,
        runner: TurnRunner,
        *,
        unload_after: float,
        unattended: UnattendedPolicy,
        runtime_idle: float,
        mailbox_capacity: int,
        seq_floor: int,
        initial: ThreadState | None = None,
        context: Sequence[ResponseItem] = (),
        load: Load | None = None,
    ) -> None:
        assert (initial is None) != (load is None), "a thread is either new or loaded"
        self.thread_id = thread_id
        self.mailbox: Mailbox[Message] = Mailbox(mailbox_capacity)
        self.state = initial
        self.finished = trio.Event()
        self._host = host
        self._store = store
        self._step = step
        self._loader = None if load is None else Loader(load)
        self._deadlines = Deadlines(unload_after, unattended)
        self._runtime = ThreadRuntime(
            thread_id,
            store,
            runner,
            self.mailbox,
            idle_seconds=runtime_idle,
            on_use=partial(host.runtime_used, self),
            context=None if initial is None else context,
        )
        self._ending = False
        # Invariant: a Drain is in the mailbox.
        self._drain_sent = False
        # Invariant: the message of the step in progress, until it is answered.
        self._in_hand: Message | None = None
        shown = NotLoaded() if initial is None else initial.status
        self._publisher = Publisher(thread_id, step, self, seq_floor, shown)
        acts = ActContext(step, store, self._runtime.model_context, partial(host.clear_away, self))
        self._decider = Decider(step, store, self._runtime, self._publisher, acts, unattended, self._loader)

    @property
    def seq(self) -> int:
        """Of the thread's last notification."""
        return self._publisher.ring.seq

    # -- the publisher's audience ---------------------------------------------------------------------

    def broadcast(self, message: Outgoing, *, besides: Sequence[Peer] = ()) -> None:
        """See ``Audience.broadcast``."""
        self._host.broadcast(message, besides=besides)

    def subscribers(self) -> list[Peer]:
        """See ``Audience.subscribers``."""
        return list(self.state.subscribers.values()) if self.state is not None else []

    def own_request(self, request_id: int) -> None:
        """See ``Audience.own_request``."""
        self._host.own_request(request_id, self)

    def forget_request(self, request_id: int) -> None:
        """See ``Audience.forget_request``."""
        self._host.forget_request(request_id)

    # -- the loop -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until retired, shut down, or broken. Cancelled: children are killed, nothing is written."""
        try:
            async with trio.open_nursery() as nursery:
                self._runtime.bind(nursery)
                try:
                    await self._serve()
                finally:
                    nursery.cancel_scope.cancel()
        except Exception:
            log.exception("thread %s failed", self.thread_id)
            await self._fail()
        finally:
            self._store.release(self.thread_id)
            self.finished.set()

    async def _serve(self) -> None:
        if self._loader is not None and not await self._load_first(self._loader):
            return
        self._deadlines.handled()
        while not self._ending:
            residency, draining = self._runtime.residency, self._step.draining()
            due = self._deadlines.next(self.state, residency, draining=draining)
            message = await self.mailbox.get(due.at)
            if isinstance(message, DropRuntime) or (message is None and due.what == "runtime"):
                self._drop_runtime()
            elif message is not None:
                await self._handle(message)
                self._deadlines.handled()
            elif due.what == "unattended":
                await self._handle(Unattended())
            elif due.what == "goal":
                self._deadlines.goal_tried()
                await self._handle(GoalDue())
            elif self._host.retire(self):
                if self.state is not None and self.state.announced:
                    self._host.announce_closed(self.thread_id, NotLoaded())
                return
        self._host.leave(self)

    # -- the runtime; see ``actors.residency`` -----------------------------------------------------------

    @property
    def pinned(self) -> bool:
        """See ``Holder.pinned``."""
        state = self.state
        return state is None or state.turn is not None or not state.materialised or self._runtime.runner.busy

    def ask_to_drop(self) -> None:
        """See ``Holder.ask_to_drop``."""
        self.mailbox.put_always(DropRuntime())

    def _drop_runtime(self) -> None:
        if self.pinned:
            # Nobody says when a command in the background ends: look again after another idle time.
            self._runtime.keep()
            return
        self._runtime.drop()
        self._publisher.ring.forget()
        self._host.runtime_dropped(self)

    # -- how it begins, and how it breaks ------------------------------------------------------------------

    async def _load_first(self, loader: Loader) -> bool:
        """Load for the first message that can be served; each before it is refused with its own error."""
        while True:
            message = await self.mailbox.get(math.inf)
            assert message is not None, "without a deadline there is a message"
            self._in_hand = message
            error = await self._load_for(message, loader)
            if error is None:
                await self._handle(message)
                return True
            await self._unmake(message)
            self._refuse(message, error)
            if self._host.retire(self):
                return False

    async def _load_for(self, message: Message, loader: Loader) -> RpcError | None:
        try:
            self.state = await loader.load(message.params if isinstance(message, Resume) else None)
        except RpcError as error:
            return (missing(message, self.thread_id) if isinstance(error, InvalidRequest) else None) or error
        except Exception:
            log.exception("thread %s could not be loaded", self.thread_id)
            return InternalError(f"thread {self.thread_id} could not be loaded")
        return None

    async def _fail(self) -> None:
        """The actor broke: end its turn, answer whoever waits, and tell everybody."""
        error = InternalError(f"thread {self.thread_id} failed; resume it to go on")
        if self._in_hand is not None:
            self._refuse(self._in_hand, error)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_STEP_SECONDS):
            try:
                if self.state is not None and self.state.turn is not None:
                    self._adopt(await self._broken("the thread failed inside the server"))
            except Exception:
                log.exception("the end of the turn of thread %s was not told", self.thread_id)
        while not self._host.retire(self):
            for message in self.mailbox.drain():
                self._refuse(message, error)
        if self.state is None or self.state.announced:
            known = self._publisher.shown == SystemErrorStatus()
            self._host.announce_closed(self.thread_id, None if known else SystemErrorStatus())

    def _refuse(self, message: Message, error: RpcError) -> None:
        self._in_hand = None
        refuse(message, error)

    # -- one step -------------------------------------------------------------------------------------

    async def _handle(self, message: Message) -> None:
        if isinstance(message, TurnPosted) and isinstance(message.event, ItemDelta):
            turn = None if self.state is None else self.state.turn
            if turn is not None and turn.id == message.turn_id:
                self._publisher.delta(message.turn_id, message.event)
            return
        self._in_hand = message
        try:
            await self._take_step(message)
        finally:
            if isinstance(message, Perform):
                self._host.give_back(self)

    async def _take_step(self, message: Message) -> None:
        try:
            decision = await self._decide(message)
        except (RpcError, StoreError) as error:
            # Where a read has failed nothing has changed, and a running turn is not concerned.
            if isinstance(error, StoreError):
                log.error("thread %s: %s", self.thread_id, error)
            await self._unmake(message)
            self._refuse(message, error if isinstance(error, RpcError) else InternalError(str(error)))
            return
        if decision.first is None or await self._take_part(message, decision.first):
            await self._take_part(message, decision)
        self._in_hand = None

    async def _take_part(self, message: Message, decision: Decision) -> bool:
        """Commit and publish; False where that failed."""
        assert self.state is not None
        try:
            await self._commit(decision)
        except StoreError as error:
            log.error("thread %s: a step was not recorded: %s", self.thread_id, error)
            if decision.otherwise is not None:
                self._adopt(decision.otherwise(error))
                return False
            await self._unmake(message)
            self._refuse(message, InternalError(str(error)))
            if error.appended:
                # What is in the transcript is in the queue no more, whatever the database still says.
                self.state = queue_claims.recorded_after_all(self.state, decision.state)
            same_turn = decision.state.turn_id == self.state.turn_id
            # Where the turn has lost nothing it goes on; to drain again at once would spin on a full disk.
            if not (isinstance(message, Drain) or (isinstance(message, Perform) and same_turn)):
                decision = await self._broken(f"the turn could not be recorded: {error}")
                if isinstance(message, Shutdown | Leave):
                    decision.effects.append(EndActor())
                self._adopt(decision)
            return False
        self._adopt(decision)
        return True

    async def _unmake(self, message: Message) -> None:
        """A new thread whose first step failed was never there: nobody knows of it."""
        if isinstance(message, Started):
            self._ending = True
            if message.fork is not None and not message.fork.ephemeral:
                with contextlib.suppress(StoreError):
                    await self._store.commit(Batch(self.thread_id, relocate="delete"))

    async def _commit(self, decision: Decision) -> None:
        if decision.durable:
            await self._store.commit(decision.batch(self._step.now_ms))

    async def _broken(self, reason: str) -> Decision:
        """The running turn, if there is one, fails because of what went wrong here, not in it.

        Its terminal line is tried once; if that fails too, the turn reads as interrupted after a restart.
        """
        state = self.state
        assert state is not None
        if state.turn is None:
            return Decision(state)
        cause = TurnError(message=reason, codex_error_info="other")
        decision = turns.broken(state, self._step, cause)
        with contextlib.suppress(StoreError):
            await self._commit(decision)
        return decision

    def _adopt(self, decision: Decision) -> None:
        had_turn = self.state is not None and self.state.turn is not None
        self._deadlines.adopted(self.state, decision.state)
        self.state = decision.state
        provider = decision.state.settings.model_provider
        for effect in decision.effects:
            if isinstance(effect, Answer | AnswerResume | Refuse):
                self._in_hand = None
            if not (self._publisher.publish(effect) or self._runtime.carry_out(effect, provider)):
                self._carry_out(effect)
        decision.state.check_invariants()
        if not (self._drain_sent or self._ending) and self._decider.may_drain(decision.state):
            self._drain_sent = True
            self.mailbox.put_always(Drain())
        if had_turn and decision.state.turn is None:
            self._runtime.use()
            self._host.turn_over()

    async def _decide(self, message: Message) -> Decision:
        assert self.state is not None
        if isinstance(message, Drain):
            self._drain_sent = False
        return await self._decider.decide(self.state, message)

    def _carry_out(self, effect: Effect) -> None:
        """The effects that concern the actor itself. Nothing waits."""
        match effect:
            case OpenFork():
                self._host.open_fork(effect, self.thread_id)
            case EndActor():
                self._ending = True
            case _:
                raise AssertionError(f"nobody carries out {effect!r}")
