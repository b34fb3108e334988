"""Which machine decides about which message: the first part of a step.

It may read (a page of history, the model context) and changes nothing that anybody could see: what it gives
is what will be, if it can be committed.
"""

from __future__ import annotations

from actors import attach, goals, questions, queue_drain, queue_rows, turn_events, turns
from actors.acts import ActContext
from actors.effects import Answer, Decision, EndActor, ShowGone
from actors.loading import Loader, with_git
from actors.messages import (
    Answered,
    Drain,
    DropRuntime,
    GoalDue,
    Leave,
    Message,
    PeerGone,
    Perform,
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
    Unattended,
    Unsubscribe,
)
from actors.publisher import Publisher
from actors.state import ThreadState
from actors.step import StepContext
from actors.thread_runtime import ThreadRuntime
from agent.events import GoalReport
from persistence.config import Unattended as UnattendedPolicy
from persistence.store import Store
from protocol.errors import InvalidRequest


class Decider:
    """Decides for one thread.

    Args:
        publisher: what clients have been told, for snapshots; nothing is published here.
        acts: what an act may use.
        unattended: what happens to questions while nobody is attached.
        loader: None for a thread that is new.
    """

    def __init__(
        self,
        step: StepContext,
        store: Store,
        runtime: ThreadRuntime,
        publisher: Publisher,
        acts: ActContext,
        unattended: UnattendedPolicy,
        loader: Loader | None,
    ) -> None:
        self._step = step
        self._store = store
        self._runtime = runtime
        self._publisher = publisher
        self._acts = acts
        self._unattended = unattended
        self._loader = loader

    async def decide(self, state: ThreadState, message: Message) -> Decision:
        """What this message leads to.

        Raises:
            RpcError: the request is refused, and nothing has happened.
            StoreError: something could not be read.
        """
        step, runtime = self._step, self._runtime
        match message:
            case TurnPosted():
                return turn_events.posted(state, message, step)
            case TurnStart() | TurnSteer() | TurnInterrupt() if not state.announced:
                raise InvalidRequest(f"thread not found: {state.record.id}")
            case TurnStart():
                state = await with_git(state)
                return turns.start(state, message, step, await runtime.model_context())
            case TurnSteer():
                return turns.steer(state, message, step)
            case TurnInterrupt():
                return turns.interrupt(state, message, step, await turns.untaken_messages(state, step))
            case TurnEnded():
                left = runtime.take_unconsumed(message.turn_id)
                context, unseen = runtime.context_in_memory, await turns.untaken_messages(state, step)
                return turns.ended(state, message, step, left, context, unseen)
            case TurnAsked(question=GoalReport() as report):
                return goals.asked(state, message, report, step)
            case TurnAsked():
                return questions.asked(state, message, step)
            case Answered():
                return questions.answered(state, message)
            case Unattended():
                return questions.unattended(state, self._unattended)
            case GoalDue():
                return turns.continue_goal(state, step, await runtime.model_context())
            case Resume():
                return await self._resume(state, message)
            case Read():
                result = await attach.read(state, message, self._store)
                return Decision(state, effects=[Answer(message.reply, result)])
            case ReadHistory():
                return await attach.read_history(state, message)
            case Started():
                return await attach.started(state, message, self._store, step.runtime.new_id())
            case Unsubscribe():
                return attach.unsubscribed(state, message)
            case PeerGone():
                return attach.peer_gone(state, message)
            case Perform():
                return await message.act.decide(state, message.reply, self._acts)
            case Drain():
                if not self.may_drain(state):
                    return Decision(state)
                state = await with_git(state)
                return queue_drain.drain(state, step, await runtime.model_context())
            case DropRuntime():
                raise AssertionError("the loop drops the runtime itself: no state changes")
            case Leave() | Shutdown():
                decision = turns.shut_down(state, step, await turns.untaken_messages(state, step))
                # Of the end of the daemon the connections tell; of this nothing else does.
                gone = [ShowGone()] if state.announced and isinstance(message, Leave) else []
                decision.effects += [*gone, EndActor()]
                return decision

    def may_drain(self, state: ThreadState) -> bool:
        """Whether the head of the queue may become a turn, and could be recorded.

        On a disk that is well again it is tried again.
        """
        could_only_fail = self._step.draining() or self._store.health.refuses
        return not could_only_fail and queue_rows.may_drain(state)

    async def _resume(self, state: ThreadState, message: Resume) -> Decision:
        if self._loader is not None:
            state = await self._loader.overridden(state, message.params)
        publisher, epoch = self._publisher, self._step.epoch
        found = await attach.snapshot(
            state, message, self._store, publisher.ring, epoch, publisher.live.shown()
        )
        return attach.resumed(state, message, found, epoch)
