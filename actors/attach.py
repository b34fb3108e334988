"""Attaching and leaving: thread/start's answer, thread/resume, thread/read, thread/unsubscribe.

Attach is atomic: the snapshot is read and the subscription made in one mailbox step. While the step reads
the rollout no event of the thread is published, so what the client gets after the snapshot is exactly what
the snapshot does not hold. A snapshot taken outside the mailbox was rejected: it needs every event
classified as "already covered" or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.acts import archived, no_rollout
from actors.effects import AnswerResume, Decision, Replay, SendRequest, ShowStatus
from actors.goals import goal_note
from actors.messages import PeerGone, Read, ReadHistory, Resume, Started, Unsubscribe
from actors.peer import Outgoing, Peer
from actors.replay import ReplayRing
from actors.state import ThreadState
from actors.views import loaded_thread, read_state_view, resume_result, start_result, thread_now
from persistence.store import ReadState, Store
from protocol.errors import InvalidRequest, NotSupported
from protocol.items import ThreadItem
from protocol.notifications import ThreadStarted, TokenUsageUpdated, WarningNote
from protocol.thread_methods import InitialTurnsPageParams, ThreadReadResult, TurnsPage, UnsubscribeResult
from protocol.threads import Turn


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The part of a resume that comes from disk."""

    turns: list[Turn]
    page: TurnsPage | None
    turns_cursor: str | None
    items_cursor: str | None
    replay: list[Outgoing] | None = None
    """What followed the client's last ``seq``, if it asked and the ring holds it: then there are no turns."""


async def started(state: ThreadState, message: Started, store: Store, revision: str) -> Decision:
    """Answer thread/start or thread/fork, subscribe its client, and announce the thread to everybody.

    ``revision`` names the read state of a fork, which begins with it.
    """
    peer, thread_id = message.reply.peer, state.record.id
    after = replace(state, announced=True).subscribed(peer)
    decision = Decision(after)
    if after.materialised and after.read_state is None:
        decision.read_state = ReadState(None, revision)
        after = decision.state = replace(after, read_state=decision.read_state)
    result = start_result(after)
    with_turns = message.fork is not None and not message.fork.exclude_turns
    if with_turns:
        source = message.fork_source if after.ephemeral else thread_id
        result.thread.turns = await store.all_turns(source or thread_id)
    decision.answer(message.reply, result)
    if with_turns:
        _usage_again(decision, peer)
    decision.notify("thread/started", ThreadStarted(thread=loaded_thread(after)))
    for text in message.warnings:
        decision.notify("warning", WarningNote(thread_id=thread_id, message=text))
    return decision


def _usage_again(decision: Decision, peer: Peer) -> None:
    """Tell one client the counters as they stand."""
    state = decision.state
    if state.usage is not None and state.usage_turn is not None:
        decision.notify(
            "thread/tokenUsage/updated",
            TokenUsageUpdated(thread_id=state.record.id, turn_id=state.usage_turn, token_usage=state.usage),
            only=peer,
        )


async def snapshot(
    state: ThreadState, message: Resume, store: Store, ring: ReplayRing, epoch: str, live: list[ThreadItem]
) -> Snapshot:
    """Read what a resume must return. ``live``: the items in progress of the running turn.

    Raises:
        RpcError: the thread cannot be resumed, or a cursor is wrong.
    """
    params = message.params
    thread_id = state.record.id
    if state.ephemeral:
        raise no_rollout(thread_id)
    if state.record.archived:
        raise archived(thread_id)
    if params.path is not None and state.path is not None and params.path != str(state.path):
        raise InvalidRequest(
            f"cannot resume running thread {thread_id} with stale path: "
            f"requested `{params.path}`, active `{state.path}`"
        )
    # A thread that was unloaded meanwhile is announced anew, under a number that is in no replay.
    if params.after_seq is not None and params.epoch == epoch and state.announced:
        missed = ring.after(params.after_seq)
        if missed is not None:
            return Snapshot([], None, None, None, replay=missed)
    if not state.materialised:
        return Snapshot([], None, None, None)
    running = state.turn.id if state.turn is not None else None
    turns: list[Turn] = []
    page: TurnsPage | None = None
    if params.initial_turns_page is not None:
        page = await first_page(store, thread_id, params.initial_turns_page, running)
        add_live_items(page.data, running, live)
    if not params.exclude_turns and page is None:
        turns = await store.all_turns(thread_id, live_turn_id=running)
        add_live_items(turns, running, live)
    turns_cursor, items_cursor = await store.history_cursors(thread_id)
    return Snapshot(turns, page, turns_cursor, items_cursor)


def add_live_items(turns: list[Turn], running: str | None, live: list[ThreadItem]) -> None:
    """Put the items in progress behind the done ones of the running turn, where its items are shown."""
    for turn in turns:
        if turn.id == running and turn.items_view != "notLoaded":
            turn.items = [*turn.items, *live]


async def first_page(
    store: Store, thread_id: str, wanted: InitialTurnsPageParams, live: str | None
) -> TurnsPage:
    """The page of turns that thread/resume was asked to bring along."""
    return await store.turns_page(
        thread_id,
        cursor=None,
        limit=wanted.limit,
        direction=wanted.sort_direction or "desc",
        view=wanted.items_view or "summary",
        live_turn_id=live,
    )


def resumed(state: ThreadState, message: Resume, found: Snapshot, epoch: str) -> Decision:
    """Answer thread/resume and subscribe its client; announce the thread if it was not known as loaded."""
    peer = message.reply.peer
    cold = not state.announced
    after = replace(state, announced=True).subscribed(peer)
    decision = Decision(after)
    decision.effects.append(ShowStatus(after, joining=peer))
    result = resume_result(after, found.turns, found.page, found.turns_cursor, found.items_cursor)
    result.epoch = epoch
    if found.replay is not None:
        result.replayed = True
        result.seq = message.params.after_seq or 0
        decision.answer(message.reply, result)
        decision.effects.append(Replay(found.replay, peer))
        # It has no number: who left between its snapshot and this has not got it.
        _usage_again(decision, peer)
        replay_pending(decision, after, peer)
        return decision
    decision.effects.append(AnswerResume(message.reply, result))
    if cold or found.turns:
        _usage_again(decision, peer)
    decision.notify(*goal_note(after))
    replay_pending(decision, after, peer)
    return decision


def replay_pending(decision: Decision, state: ThreadState, peer: Peer) -> None:
    """Ask one client again, under the same ids, what is still open: its answer counts from now on."""
    asked = tuple(replace(entry, asked=entry.asked | {peer.id}) for entry in state.pending)
    decision.state = replace(decision.state, pending=asked)
    decision.effects.extend(
        SendRequest(entry.request_id, entry.method, entry.params, only=peer) for entry in state.pending
    )


async def read(state: ThreadState, message: Read, store: Store) -> ThreadReadResult:
    """thread/read of a loaded thread.

    Raises:
        RpcError: turns were asked of a thread that has none to show.
    """
    turns: list[Turn] | None = None
    if message.params.include_turns:
        if state.ephemeral:
            raise InvalidRequest("ephemeral threads do not support includeTurns")
        if not state.materialised:
            raise NotSupported("list_turns is not supported yet")
        live = state.turn.id if state.turn is not None else None
        turns = await store.all_turns(state.record.id, live_turn_id=live)
    thread = thread_now(state)
    thread.turns = turns or []
    known = state.read_state
    return ThreadReadResult(thread=thread, read_state=None if known is None else read_state_view(known))


async def read_history(state: ThreadState, message: ReadHistory) -> Decision:
    """A page of the history of a loaded thread.

    Raises:
        RpcError: it has none to page through.
    """
    if state.ephemeral:
        raise InvalidRequest(message.unavailable)
    if not state.materialised:
        raise NotSupported(message.not_yet)
    decision = Decision(state)
    decision.answer(message.reply, await message.read(state.turn_id))
    return decision


def unsubscribed(state: ThreadState, message: Unsubscribe) -> Decision:
    """thread/unsubscribe: no notification, and nothing that runs is touched."""
    peer = message.reply.peer
    known = peer.id in state.subscribers
    decision = Decision(state.unsubscribed(peer.id) if known else state)
    decision.answer(message.reply, UnsubscribeResult(status="unsubscribed" if known else "notSubscribed"))
    return decision


def peer_gone(state: ThreadState, message: PeerGone) -> Decision:
    """A connection ended."""
    return Decision(state.unsubscribed(message.peer.id))
