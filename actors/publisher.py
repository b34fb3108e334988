"""Publishing: from effects to the outboxes. Nothing in here waits or fails.

The publisher of a thread numbers its notifications, keeps the last ones for replay, keeps the items in
progress for snapshots, and sees to it that a status is never sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.effects import (
    Answer,
    AnswerResume,
    Effect,
    FillSlot,
    ForgetRequest,
    Notify,
    Refuse,
    Replay,
    SendRequest,
    ShowGone,
    ShowStatus,
)
from actors.live_items import LiveItems
from actors.peer import Delta, Outgoing, Peer
from actors.replay import ReplayRing
from actors.step import StepContext
from actors.turn_events import delta_note
from agent.events import ItemDelta, ReasoningPart
from protocol.base import Wire
from protocol.items import UserMessageItem
from protocol.jsonrpc import encode_notification, encode_request
from protocol.notifications import (
    SERVER_NOTIFICATIONS,
    ErrorNote,
    ItemCompletedNote,
    ItemStartedNote,
    ReasoningPartAdded,
    StatusChanged,
    ThreadStarted,
    TurnNote,
)
from protocol.threads import NotLoaded, ThreadStatus


class Audience(Protocol):
    """Who hears a thread, besides those named in an effect."""

    def broadcast(self, message: Outgoing, *, besides: Sequence[Peer] = ()) -> None:
        """Send to every initialised connection that is not one of ``besides``."""
        ...

    def subscribers(self) -> list[Peer]:
        """Who gets turn and item events now."""
        ...

    def own_request(self, request_id: int) -> None:
        """Route the answers to this server request to this thread."""
        ...

    def forget_request(self, request_id: int) -> None:
        """The request is settled."""
        ...


class Publisher:
    """One thread's way to its clients.

    Attributes:
        ring: the last notifications.
        live: the items in progress. Invariant: empty while no turn runs.
        shown: the status that clients were told last.
    """

    def __init__(
        self,
        thread_id: str,
        step: StepContext,
        audience: Audience,
        seq_floor: int,
        shown: ThreadStatus,
    ) -> None:
        self.ring = ReplayRing(seq_floor)
        self.live = LiveItems()
        self._thread_id = thread_id
        self._step = step
        self._audience = audience
        self.shown = shown

    def publish(self, effect: Effect) -> bool:
        """Publish one effect; False: it is none that concerns clients."""
        match effect:
            case Notify(method=method, params=params, only=only):
                self.notify(method, params, only)
            case ShowStatus(state=state, joining=joining):
                self._show_status(state.status, joining)
            case ShowGone():
                self._show_status(NotLoaded())
            case Answer(reply=reply, value=value):
                reply.result(value)
            case AnswerResume(reply=reply, value=value):
                value.seq = self.ring.seq
                reply.result(value)
            case Refuse(reply=reply, error=error):
                reply.error(error)
            case Replay(messages=messages, to=peer):
                for each in messages:
                    peer.deliver(each)
            case SendRequest(request_id=request_id, method=method, params=params, only=only):
                self._audience.own_request(request_id)
                message = Outgoing(encode_request(request_id, method, params))
                for peer in self._audience.subscribers() if only is None else [only]:
                    peer.deliver(message)
            case ForgetRequest(request_id=request_id):
                self._audience.forget_request(request_id)
            case FillSlot(slot=slot, answer=answer):
                slot.fill(answer)
            case _:
                return False
        return True

    def delta(self, turn_id: str, event: ItemDelta) -> None:
        """Send a text delta on: a step of its own that changes no state and commits nothing."""
        self.live.grew(event)
        method, note = delta_note(self._thread_id, turn_id, event)
        params = note.to_wire()
        now, seq, epoch = self._step.now_ms, self.ring.next_seq(), self._step.epoch
        data = encode_notification(method, params, now, seq=seq, epoch=epoch)
        delta = Delta((method, event.item_id, event.index, turn_id), params, event.delta, now, seq, epoch)
        self._spread(Outgoing(data, method, delta))

    def notify(
        self, method: str, params: Wire, only: Peer | None = None, joining: Peer | None = None
    ) -> None:
        """Send a notification to whom its row says, or to one client. ``joining``: see ``ShowStatus``."""
        now = self._step.now_ms
        if only is not None:
            # For one client alone: no part of the thread's one order, and without a place in it.
            only.deliver(Outgoing(encode_notification(method, params, now), method))
            return
        broadcast = SERVER_NOTIFICATIONS[method].broadcast
        if getattr(params, "thread_id", self._thread_id) != self._thread_id:
            # Of a descendant that was put away with this thread: its own count has ended.
            self._audience.broadcast(Outgoing(encode_notification(method, params, now), method))
            return
        self._follow(params)
        data = encode_notification(method, params, now, seq=self.ring.next_seq(), epoch=self._step.epoch)
        attached = self._spread(Outgoing(data, method), joining)
        if broadcast:
            # A number counts for those who get all of them: with this one, who is not attached would ask
            # for what follows it and miss what came before.
            others = Outgoing(encode_notification(method, params, now), method)
            self._audience.broadcast(others, besides=attached)

    def _spread(self, message: Outgoing, joining: Peer | None = None) -> Sequence[Peer]:
        """Keep a numbered message and send it to the subscribers."""
        self.ring.keep(message)
        attached = [peer for peer in self._audience.subscribers() if peer is not joining]
        for peer in attached:
            peer.deliver(message)
        return attached

    def _show_status(self, status: ThreadStatus, joining: Peer | None = None) -> None:
        if status != self.shown:
            self.shown = status
            params = StatusChanged(thread_id=self._thread_id, status=status)
            self.notify("thread/status/changed", params, joining=joining)

    def _follow(self, params: Wire) -> None:
        """Keep the items in progress in step with what clients are told."""
        live = self.live
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
            case ThreadStarted(thread=thread):
                self.shown = thread.status
            case TurnNote(turn=turn) if turn.status != "inProgress":
                live.clear()
            case _:
                pass
