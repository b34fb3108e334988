"""The actor of one loaded thread.

One Trio task, one mailbox, one step at a time. A step takes a message and

1. *decides*: a function of (state, message) gives the next state, the lines for the rollout, and the
   effects to publish (``actors.turns``, ``turn_events``, ``questions``, ``attach``);
2. *commits*: awaits the store; if that fails, nothing was published and the state is as before;
3. *publishes*: hands replies and notifications to the outboxes, starts and cancels the turn. No await.

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
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from actors import attach, questions, turn_events, turns
from actors.effects import (
    Answer,
    CancelTurn,
    Decision,
    Effect,
    EndActor,
    FillSlot,
    ForgetRequest,
    GrowContext,
    Notify,
    Refuse,
    Replay,
    SendRequest,
    ShowStatus,
    StartTurn,
    SteerTurn,
)
from actors.live_items import LiveItems
from actors.mailbox import Mailbox
from actors.messages import (
    Answered,
    Message,
    PeerGone,
    Read,
    ReadHistory,
    Resume,
    Shutdown,
    Started,
    TurnAsked,
    TurnEnded,
    TurnInterrupt,
    TurnPosted,
    TurnStart,
    TurnSteer,
    Unsubscribe,
)
from actors.peer import Delta, Outgoing, Peer
from actors.replay import ReplayRing
from actors.state import ThreadState, change_record
from actors.step import StepContext, draining_error
from actors.turn_task import TurnRunner, TurnTask
from agent.events import ItemDelta, ReasoningPart
from agent.git_info import read_git_info
from agent.model.events import ResponseItem
from persistence.errors import StoreError
from persistence.store import Batch, Store
from protocol.base import Wire
from protocol.errors import InternalError, InvalidRequest, NotSupported, RpcError
from protocol.items import UserMessageItem
from protocol.jsonrpc import encode_notification, encode_request
from protocol.notifications import (
    SERVER_NOTIFICATIONS,
    ErrorNote,
    ItemCompletedNote,
    ItemStartedNote,
    ReasoningPartAdded,
    StatusChanged,
    TurnNote,
)
from protocol.thread_methods import ThreadResumeParams
from protocol.threads import NotLoaded, SystemErrorStatus, ThreadStatus, TurnError

log = logging.getLogger(__name__)

LAST_STEP_SECONDS = 5.0
"""How long a broken actor may take to record the end of its turn."""


class ThreadHost(Protocol):
    """What an actor needs of its supervisor. Nothing here waits."""

    def broadcast(self, message: Outgoing) -> None:
        """Send to every initialised connection."""
        ...

    def own_request(self, request_id: int, actor: ThreadActor) -> None:
        """Route the answers to this server request to this actor."""
        ...

    def forget_request(self, request_id: int) -> None:
        """The request is settled."""
        ...

    def retire(self, actor: ThreadActor) -> bool:
        """Take the actor out of service, unless messages wait for it; says whether it did."""
        ...

    def announce_closed(self, thread_id: str, status: ThreadStatus | None) -> None:
        """Tell everybody that the thread is not loaded any more; ``status`` None: they know it already."""
        ...

    def turn_over(self) -> None:
        """A turn ended: a draining daemon may be able to leave now."""
        ...


Load = Callable[[ThreadResumeParams], Awaitable[ThreadState]]


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
        mailbox_capacity: int,
        seq_floor: int,
        initial: ThreadState | None = None,
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
        self._runner = runner
        self._load = load
        self._unload_after = unload_after
        # The model context; None until the first turn needs it. Invariant: grows only by GrowContext.
        self._context: list[ResponseItem] | None = [] if initial is not None else None
        self._task: TurnTask | None = None
        # Invariant: equal to `state.status` after every step, and sent by nobody else.
        self._shown: ThreadStatus | None = None if initial is None else initial.status
        self._cold = load is not None
        self._ending = False
        # Invariant: the message of the step in progress, until it is answered.
        self._in_hand: Message | None = None
        self._nursery: trio.Nursery | None = None
        self._ring = ReplayRing(seq_floor)
        # Invariant: empty while no turn runs.
        self._live = LiveItems()

    @property
    def seq(self) -> int:
        """Of the thread's last notification."""
        return self._ring.seq

    async def run(self) -> None:
        """Live until retired, shut down, or broken. Cancelled: children are killed, nothing is written."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._runner.bind(self._nursery)
                try:
                    await self._serve()
                finally:
                    self._nursery.cancel_scope.cancel()
        except Exception:
            log.exception("thread %s failed", self.thread_id)
            await self._fail()
        finally:
            self._store.release(self.thread_id)
            self.finished.set()

    async def _serve(self) -> None:
        if self._load is not None and not await self._load_first():
            return
        while not self._ending:
            message = await self.mailbox.get(self._deadline())
            if message is None:
                if self._host.retire(self):
                    self._host.announce_closed(self.thread_id, NotLoaded())
                    return
                continue
            await self._handle(message)
        self._turn_away(draining_error())

    def _deadline(self) -> float:
        state = self.state
        if state is None or state.turn is not None or state.subscribers:
            return math.inf
        return trio.current_time() + self._unload_after

    async def _load_first(self) -> bool:
        """Load for the first resume that can be served; each before it is refused with its own error."""
        while True:
            message = await self.mailbox.get(math.inf)
            assert message is not None, "without a deadline there is a message"
            self._in_hand = message
            error = await self._load_for(message)
            if error is None:
                await self._handle(message)
                return True
            self._refuse(message, error)
            if self._host.retire(self):
                return False

    async def _load_for(self, message: Message) -> RpcError | None:
        if not isinstance(message, Resume):
            return InvalidRequest(f"thread not found: {self.thread_id}")
        assert self._load is not None
        try:
            self.state = await self._load(message.params)
        except RpcError as error:
            return error
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
        self._turn_away(error)
        status = SystemErrorStatus()
        self._host.announce_closed(self.thread_id, None if self._shown == status else status)

    def _turn_away(self, error: RpcError) -> None:
        """Leave the supervisor's table, refusing what still waits."""
        while not self._host.retire(self):
            for message in self.mailbox.drain():
                self._refuse(message, error)

    def _refuse(self, message: Message, error: RpcError) -> None:
        self._in_hand = None
        refuse(message, error)

    # -- one step -------------------------------------------------------------------------------------

    async def _handle(self, message: Message) -> None:
        if isinstance(message, TurnPosted) and isinstance(message.event, ItemDelta):
            self._pass_on(message.turn_id, message.event)
            return
        self._in_hand = message
        try:
            decision = await self._decide(message)
        except RpcError as error:
            self._refuse(message, error)
            return
        except StoreError as error:
            # Only a read has failed: nothing has changed, and a running turn is not concerned.
            log.error("thread %s: %s", self.thread_id, error)
            self._refuse(message, InternalError(str(error)))
            return
        try:
            await self._commit(decision)
        except StoreError as error:
            log.error("thread %s: a step was not recorded: %s", self.thread_id, error)
            self._refuse(message, InternalError(str(error)))
            decision = await self._broken(f"the turn could not be recorded: {error}")
            if isinstance(message, Shutdown):
                decision.effects.append(EndActor())
        self._adopt(decision)
        self._in_hand = None

    async def _commit(self, decision: Decision) -> None:
        if decision.lines:
            await self._store.commit(
                Batch(self.thread_id, decision.lines, fsync=decision.fsync, create=decision.create)
            )

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
        self.state = decision.state
        for effect in decision.effects:
            self._publish(effect)
        decision.state.check_invariants()
        if had_turn and decision.state.turn is None:
            self._host.turn_over()

    async def _decide(self, message: Message) -> Decision:
        state, step = self.state, self._step
        assert state is not None
        match message:
            case TurnPosted():
                return turn_events.posted(state, message, step)
            case TurnStart():
                if not state.materialised and not state.ephemeral:
                    state = change_record(state, git=await read_git_info(state.settings.cwd))
                return turns.start(state, message, step, await self._model_context())
            case TurnSteer():
                return turns.steer(state, message, step)
            case TurnInterrupt():
                return turns.interrupt(state, message, step)
            case TurnEnded():
                # The end of an old turn may come when a new one runs already: what was said to that stays.
                current = self._task is not None and self._task.turn_id == message.turn_id
                left = self._task.take_unconsumed() if self._task is not None and current else []
                return turns.ended(state, message, step, left, self._context or [])
            case TurnAsked():
                return questions.asked(state, message, step)
            case Answered():
                return questions.answered(state, message)
            case Resume():
                epoch = self._step.epoch
                found = await attach.snapshot(
                    state, message, self._store, self._ring, epoch, self._live.shown()
                )
                cold, self._cold = self._cold, False
                return attach.resumed(state, message, found, cold=cold, seq=self.seq, epoch=epoch)
            case Read():
                result = await attach.read(state, message, self._store)
                return Decision(state, effects=[Answer(message.reply, result)])
            case ReadHistory():
                return await self._read_history(state, message)
            case Started():
                return attach.started(state, message)
            case Unsubscribe():
                return attach.unsubscribed(state, message)
            case PeerGone():
                return attach.peer_gone(state, message)
            case Shutdown():
                decision = turns.shut_down(state, step)
                decision.effects.append(EndActor())
                return decision

    async def _read_history(self, state: ThreadState, message: ReadHistory) -> Decision:
        if state.ephemeral:
            raise InvalidRequest(message.unavailable)
        if not state.materialised:
            raise NotSupported(message.not_yet)
        value = await message.read(state.turn.id if state.turn is not None else None)
        return Decision(state, effects=[Answer(message.reply, value)])

    async def _model_context(self) -> list[ResponseItem]:
        if self._context is None:
            self._context = (await self._store.resume_state(self.thread_id)).context
        return self._context

    # -- publishing: nothing below waits --------------------------------------------------------------

    def _pass_on(self, turn_id: str, event: ItemDelta) -> None:
        state = self.state
        if state is None or state.turn is None or state.turn.id != turn_id:
            return
        self._live.grew(event)
        method, note = turn_events.delta_note(self.thread_id, turn_id, event)
        params = note.to_wire()
        now, seq, epoch = self._step.now_ms, self._ring.next_seq(), self._step.epoch
        data = encode_notification(method, params, now, seq=seq, epoch=epoch)
        delta = Delta((method, event.item_id, event.index, turn_id), params, event.delta, now, seq, epoch)
        message = Outgoing(data, method, delta)
        self._ring.keep(message)
        self._to_subscribers(message)

    def _publish(self, effect: Effect) -> None:
        match effect:
            case Notify(method=method, params=params, only=only):
                self._notify(method, params, only)
            case ShowStatus(state=state):
                status = state.status
                if status != self._shown:
                    self._shown = status
                    self._notify(
                        "thread/status/changed", StatusChanged(thread_id=self.thread_id, status=status)
                    )
            case Answer(reply=reply, value=value):
                self._in_hand = None
                reply.result(value)
            case Refuse(reply=reply, error=error):
                self._in_hand = None
                reply.error(error)
            case GrowContext(items=items):
                if self._context is not None:
                    self._context.extend(items)
            case FillSlot(slot=slot, answer=answer):
                slot.fill(answer)
            case Replay(messages=messages, to=peer):
                for each in messages:
                    peer.deliver(each)
            case SendRequest(request_id=request_id, method=method, params=params, only=only):
                self._host.own_request(request_id, self)
                self._to(only, Outgoing(encode_request(request_id, method, params)))
            case ForgetRequest(request_id=request_id):
                self._host.forget_request(request_id)
            case StartTurn(job=job):
                assert self._nursery is not None
                assert self.state is not None
                provider = self.state.settings.model_provider
                self._task = TurnTask(job, provider, self.mailbox, self._runner)
                self._nursery.start_soon(self._task.run)
            case SteerTurn(submission=submission):
                assert self._task is not None
                self._task.steer(submission)
            case CancelTurn(turn_id=turn_id):
                if self._task is not None and self._task.turn_id == turn_id:
                    self._task.cancel()
            case EndActor():
                self._ending = True

    def _notify(self, method: str, params: Wire, only: Peer | None = None) -> None:
        if only is not None:
            # For one client alone: no part of the thread's one order, and without a place in it.
            only.deliver(Outgoing(encode_notification(method, params, self._step.now_ms), method))
            return
        self._follow(params)
        seq = self._ring.next_seq()
        data = encode_notification(method, params, self._step.now_ms, seq=seq, epoch=self._step.epoch)
        message = Outgoing(data, method)
        self._ring.keep(message)
        if SERVER_NOTIFICATIONS[method].broadcast:
            self._host.broadcast(message)
        else:
            self._to_subscribers(message)

    def _follow(self, params: Wire) -> None:
        """Keep the items in progress in step with what clients are told."""
        live = self._live
        match params:
            case ItemStartedNote(item=item):
                if isinstance(item, UserMessageItem):
                    live.abandon_stream()
                live.started(item)
            case ItemCompletedNote(item=item):
                live.completed(item.id)
            case ReasoningPartAdded(item_id=item_id, summary_index=index):
                live.part_added(ReasoningPart(item_id, index))
            case ErrorNote(will_retry=True):
                live.abandon_stream()
            case TurnNote(turn=turn) if turn.status != "inProgress":
                live.clear()
            case _:
                pass

    def _to(self, only: Peer | None, message: Outgoing) -> None:
        if only is not None:
            only.deliver(message)
        else:
            self._to_subscribers(message)

    def _to_subscribers(self, message: Outgoing) -> None:
        assert self.state is not None
        for peer in self.state.subscribers.values():
            peer.deliver(message)


def refuse(message: Message, error: RpcError) -> None:
    """Answer a message that will not be handled; one that nobody asked is dropped."""
    match message:
        case Started() | Resume() | Read() | ReadHistory() | Unsubscribe():
            message.reply.error(error)
        case TurnStart() | TurnSteer() | TurnInterrupt():
            message.reply.error(error)
        case _:
            pass
