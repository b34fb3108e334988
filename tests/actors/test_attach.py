"""Attaching is atomic: the snapshot and what follows are together all there is, once."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from agent.events import ItemCompleted, ItemDelta, ItemStarted, ModelResponded, ReasoningPart, TurnOutcome
from protocol.errors import RpcError
from protocol.items import AgentMessageItem, CommandExecutionItem, ReasoningItem, UserMessageItem
from protocol.threads import TokenCounts, TurnError
from tests.actors.client_view import View
from tests.actors.stage import Asked, Stage, question, raw_message
from tests.support.in_memory import PuppetTurn, RecordingPeer, replay_hint

Move = Callable[[], Awaitable[None]]


def view_of(peer: RecordingPeer, *, since: int = 0) -> View:
    """Fold what a client got; an answer that holds a thread is its snapshot."""
    view = View()
    for message in copy.deepcopy(peer.log[since:]):
        if "thread" in message.get("result", {}):
            view.snapshot(message["result"])
        elif "method" in message:
            view.event(message)
    return view


def command(status: str, output: str | None = None) -> CommandExecutionItem:
    return CommandExecutionItem(
        id="call-0", command="touch file", cwd="/", status=status, aggregated_output=output,  # type: ignore[arg-type]
        started_at_ms=1, completed_at_ms=None if status == "inProgress" else 2,
    )  # fmt: skip


def user_message(turn: PuppetTurn) -> UserMessageItem:
    """What the turn was started with."""
    submission = turn.job.submissions[0]
    return UserMessageItem(
        id=submission.item_id, content=list(submission.input), started_at_ms=1, completed_at_ms=1
    )


class Recorded:
    """A turn with every kind of event, one move at a time."""

    def __init__(self, stage: Stage, nursery: trio.Nursery, peer: RecordingPeer, turn: PuppetTurn) -> None:
        self.stage, self.nursery, self.peer, self.turn = stage, nursery, peer, turn
        self.asked = Asked()

    def moves(self, ending: str) -> list[Move]:
        post = self.turn.post
        said = user_message(self.turn)
        thought = ReasoningItem(id="r", summary=["one two", "three"], started_at_ms=1, completed_at_ms=2)
        text = AgentMessageItem(id="m", text="hello world", started_at_ms=1, completed_at_ms=2)
        raw = (raw_message("x"),)
        events = [
            ItemStarted(said),
            ItemCompleted(said, context=raw, context_first=True),
            ItemStarted(ReasoningItem(id="r", started_at_ms=1)),
            ReasoningPart("r", 0),
            ItemDelta("reasoningSummary", "r", "one "),
            ItemDelta("reasoningSummary", "r", "two"),
            ReasoningPart("r", 1),
            ItemDelta("reasoningSummary", "r", "three", 1),
            ItemCompleted(thought, context=raw),
        ]
        moves: list[Move] = [lambda event=event: post(event) for event in events]  # type: ignore[misc]
        moves += [
            self.ask,
            self.accept,
            lambda: post(ItemDelta("commandOutput", "call-0", "line 1\n")),
            lambda: post(ItemDelta("commandOutput", "call-0", "line 2\n")),
            lambda: post(ItemCompleted(command("completed", "line 1\nline 2\n"), context=raw)),
            lambda: post(ModelResponded("resp", TokenCounts(total_tokens=5))),
            lambda: post(ItemStarted(AgentMessageItem(id="m", started_at_ms=1))),
            lambda: post(ItemDelta("agentMessage", "m", "hello ")),
            lambda: post(ItemDelta("agentMessage", "m", "world")),
            lambda: post(ItemCompleted(text, context=raw)),
            lambda: self.end(ending),
        ]
        return moves

    async def ask(self) -> None:
        self.nursery.start_soon(self.asked.ask, self.turn, question("call-0"))
        await self.peer.until(lambda log: any("method" in entry and "id" in entry for entry in log))

    async def accept(self) -> None:
        request = next(entry for entry in self.peer.log if "method" in entry and "id" in entry)
        self.stage.answer(self.peer, request["id"], {"decision": "accept"})
        await self.asked.done.wait()

    async def end(self, how: str) -> None:
        if how == "interrupt":
            await self.stage.interrupt(self.peer, self.turn.job.thread_id, self.turn.job.turn_id).answer()
        elif how == "fail":
            self.turn.end(TurnOutcome(error=TurnError(message="broken", codex_error_info="other")))
        else:
            self.turn.end()
        await self.peer.got("turn/completed")


@pytest.mark.parametrize("ending", ["complete", "interrupt", "fail"])
async def test_who_attaches_at_any_event_ends_with_what_the_others_have(
    stage: Stage, nursery: trio.Nursery, ending: str
) -> None:
    index, last = 0, 1
    while index <= last:
        with replay_hint(index=index, ending=ending):
            owner, late = stage.peer(), stage.peer()
            thread_id = await stage.start(owner)
            turn_id, turn = await stage.begin(owner, thread_id)
            recorded = Recorded(stage, nursery, owner, turn)
            moves = recorded.moves(ending)
            last = len(moves)
            for number, move in enumerate(moves):
                if number == index:
                    # Not waited for: the attach and the next event are handled in the order they came.
                    since = len(late.log)
                    resumed = stage.resume(late, thread_id)
                await move()
            if index == len(moves):
                since = len(late.log)
                resumed = stage.resume(late, thread_id)
            await resumed.answer()
            await stage.handled(thread_id)
            seen = view_of(owner)
            assert view_of(late, since=since).comparable() == seen.comparable()
            message = turn.job.submissions[0].item_id
            assert [item["id"] for item in seen.items[turn_id].values()] == [message, "r", "call-0", "m"]
            stage.supervisor.peer_gone(owner)
            stage.supervisor.peer_gone(late)
        index += 1


async def test_who_was_away_gets_exactly_what_it_missed(stage: Stage, nursery: trio.Nursery) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(owner, thread_id)
    for move in Recorded(stage, nursery, owner, turn).moves("complete"):
        await move()
    numbered = [entry for entry in owner.log if "seq" in entry]
    assert [entry["seq"] for entry in numbered] == list(range(1, len(numbered) + 1))
    for entry in numbered:
        back = RecordingPeer(1000 + entry["seq"])
        result = await stage.resume(
            back, thread_id, afterSeq=entry["seq"], epoch=entry["epoch"], excludeTurns=True
        ).answer()
        assert result["replayed"]
        assert [each for each in back.log if "seq" in each] == numbered[entry["seq"] :]


async def test_a_wrong_epoch_or_a_number_from_the_future_gets_a_snapshot(stage: Stage) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    known = next(entry for entry in owner.log if "seq" in entry)
    for wrong in ({"afterSeq": 1, "epoch": "other"}, {"afterSeq": 10**6, "epoch": known["epoch"]}):
        result = await stage.resume(stage.peer(), thread_id, **wrong).answer()
        assert not result["replayed"]
        assert len(result["thread"]["turns"]) == 1


async def test_a_resume_from_disk_shows_the_status_before_the_answer_and_one_of_a_loaded_thread_does_not(
    stage: Stage,
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    stage.shut_down(thread_id)
    await stage.actor(thread_id).finished.wait()
    cold, warm = stage.peer(), stage.peer()
    await stage.resume(cold, thread_id).answer()
    await stage.handled(thread_id)
    assert cold.methods()[:3] == ["thread/status/changed", "result", "thread/tokenUsage/updated"] or (
        cold.methods()[:3] == ["thread/status/changed", "result", "thread/goal/cleared"]
    )
    warm.log.clear()
    await stage.resume(warm, thread_id).answer()
    await stage.handled(thread_id)
    assert "thread/status/changed" not in warm.methods()


async def test_the_owner_may_resume_its_own_running_thread_and_gets_each_event_once(stage: Stage) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(owner, thread_id)
    await stage.resume(owner, thread_id).answer()
    turn.end()
    await owner.got("turn/completed")
    await stage.handled(thread_id)
    assert len(owner.params("turn/completed")) == 1


async def test_who_is_not_subscribed_gets_broadcasts_and_answers_only(stage: Stage) -> None:
    owner, stranger = stage.peer(), stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(stranger, thread_id)
    await turn.post(ItemDelta("agentMessage", "m", "x"))
    turn.end()
    await owner.got("turn/completed")
    assert set(stranger.methods()) == {"thread/started", "result", "thread/status/changed"}
    assert "thread/started" in owner.methods()


async def test_a_stale_path_of_a_loaded_thread_is_refused_and_nobody_is_subscribed(stage: Stage) -> None:
    owner, other = stage.peer(), stage.peer()
    thread_id = await stage.start(owner)
    with pytest.raises(RpcError, match="stale path: requested `/nowhere`"):
        await stage.resume(other, thread_id, path="/nowhere").answer()
    state = stage.actor(thread_id).state
    assert state is not None
    assert list(state.subscribers) == [owner.id]


def ids(result: dict[str, Any]) -> list[str]:
    return [turn["id"] for turn in result["thread"]["turns"]]


async def test_a_failed_read_of_the_snapshot_concerns_only_who_asked(stage: Stage) -> None:
    owner, other = stage.peer(), stage.peer()
    thread_id = await stage.start(owner)
    turn_id, turn = await stage.begin(owner, thread_id)
    stage.store.unreadable = True
    for reply in (stage.resume(other, thread_id), stage.read(other, thread_id, turns=True)):
        with pytest.raises(RpcError, match="the disk cannot be read"):
            await reply.answer()
    stage.store.unreadable = False
    assert not turn.cancelled
    assert ids(await stage.resume(other, thread_id).answer()) == [turn_id]
    turn.end()
    assert (await other.got("turn/completed"))["turn"]["status"] == "completed"
