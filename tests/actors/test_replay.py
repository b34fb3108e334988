"""Whoever was away, whenever, and comes back either way, ends with what those have who stayed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from actors.naming import SetName
from actors.replay import RING_BYTES
from agent.events import (
    ItemCompleted,
    ItemDelta,
    ItemStarted,
    ModelResponded,
    ReasoningPart,
    Retrying,
    TurnEvent,
)
from protocol.items import AgentMessageItem, CommandExecutionItem, ReasoningItem, UserMessageItem
from protocol.threads import TokenCounts, TurnError
from protocol.user_input import TextInput
from spoold.testing.client_state import ClientState
from tests.actors.stage import Asked, Stage, question, raw_message
from tests.support.in_memory import PuppetTurn, RecordingPeer, replay_hint

Json = dict[str, Any]
Move = Callable[[], Awaitable[None]]
RAW = (raw_message("x"),)


def shown(*logs: list[Json]) -> Json:
    """What a client shows that got these messages."""
    state = ClientState()
    for log in logs:
        state.all(log)
    return state.shown()


def command(number: int, status: str, output: str | None = None) -> CommandExecutionItem:
    return CommandExecutionItem(
        id=f"call-{number}", command=f"touch {number}", cwd="/", status=status, aggregated_output=output,  # type: ignore[arg-type]
        started_at_ms=1, completed_at_ms=None if status == "inProgress" else 2,
    )  # fmt: skip


def said(item_id: str, text: str) -> list[TurnEvent]:
    item = UserMessageItem(id=item_id, content=[TextInput(text=text)], started_at_ms=1)
    done = item.model_copy(update={"completed_at_ms": 1})
    return [ItemStarted(item), ItemCompleted(done, context=RAW, context_first=True)]


def message(item_id: str, *words: str, done: bool = True) -> list[TurnEvent]:
    item = AgentMessageItem(id=item_id, started_at_ms=1)
    end = item.model_copy(update={"text": "".join(words), "completed_at_ms": 2})
    deltas = [ItemDelta("agentMessage", item_id, word) for word in words]
    return [ItemStarted(item), *deltas, *([ItemCompleted(end, context=RAW)] if done else [])]


class Recorded:
    """A turn with everything that clients see of one, as single moves of a puppet."""

    def __init__(self, stage: Stage, nursery: trio.Nursery, peer: RecordingPeer, turn: PuppetTurn) -> None:
        self.stage, self.nursery, self.peer, self.turn = stage, nursery, peer, turn
        self.thread_id = turn.job.thread_id
        self.asked: list[Asked] = []

    def moves(self) -> list[Move]:
        post = self.turn.post
        thought = ReasoningItem(
            id="r", summary=["one two", "three"], content=["raw a"], started_at_ms=1, completed_at_ms=2
        )
        thinking: list[TurnEvent] = [
            ItemStarted(ReasoningItem(id="r", started_at_ms=1)),
            ReasoningPart("r", 0),
            ItemDelta("reasoningSummary", "r", "one "),
            ItemDelta("reasoningSummary", "r", "two"),
            ReasoningPart("r", 1),
            ItemDelta("reasoningSummary", "r", "three", 1),
            ItemDelta("reasoningText", "r", "raw "),
            ItemDelta("reasoningText", "r", "a"),
            ItemCompleted(thought, context=RAW),
        ]
        commands: list[TurnEvent] = [
            ItemStarted(command(7, "inProgress")),
            ItemDelta("commandOutput", "call-0", "line 1\n"),
            ItemDelta("commandOutput", "call-7", "seven\n"),
            ItemDelta("commandOutput", "call-0", "line 2\n"),
            # The later one ends first.
            ItemCompleted(command(7, "completed", "seven\n"), context=RAW),
            ItemCompleted(command(0, "completed", "line 1\nline 2\n"), context=RAW),
            ModelResponded("resp", TokenCounts(total_tokens=5)),
        ]
        retry = Retrying(TurnError(message="again", codex_error_info="other"))
        events = partial(map, lambda event: partial(post, event))
        return [
            *events(said(self.turn.job.submissions[0].item_id, "go")),
            *events(thinking),
            self.ask,
            self.ask,
            partial(self.answer, 0, "accept"),
            partial(self.answer, 1, "decline"),
            partial(post, ItemCompleted(command(1, "declined"), persist=False)),
            *events(commands),
            *events(message("cut", "this ", "is lost", done=False)),
            partial(post, retry),
            *events(message("steered", "and ", "this", done=False)),
            *events(said("u2", "no, so")),
            self.rename,
            *events(message("m", "hello ", "world")),
            partial(post, ModelResponded("resp-2", TokenCounts(total_tokens=7))),
            *events(message("n", "to be ", "continued", done=False)),
            self.ask,
            self.interrupt,
        ]

    async def ask(self) -> None:
        number = len(self.asked)
        self.asked.append(Asked())
        self.nursery.start_soon(
            self.asked[-1].ask, self.turn, question(f"call-{number}", "touch", f"{number}")
        )
        await self.peer.until(lambda log: len(_requests(log)) > number)

    async def answer(self, number: int, decision: str) -> None:
        self.stage.answer(self.peer, _requests(self.peer.log)[number]["id"], {"decision": decision})
        await self.asked[number].done.wait()

    async def rename(self) -> None:
        reply = self.peer.reply()
        self.stage.supervisor.perform(self.thread_id, SetName("a name"), reply)
        await reply.answer()

    async def interrupt(self) -> None:
        await self.stage.interrupt(self.peer, self.thread_id, self.turn.job.turn_id).answer()


def _requests(log: list[Json]) -> list[Json]:
    return [entry for entry in log if "method" in entry and "id" in entry]


async def back_by_sequence(stage: Stage, thread_id: str, before: list[Json]) -> tuple[RecordingPeer, Json]:
    """A client that got ``before``, was gone, and asks for what followed."""
    known = ClientState().all(before)
    peer = stage.peer()
    result = await stage.resume(peer, thread_id, afterSeq=known.seq, epoch=known.epoch).answer()
    await stage.handled(thread_id)
    return peer, result


async def test_who_left_after_any_event_and_comes_back_at_any_later_one_ends_with_what_the_others_have(
    stage: Stage, nursery: trio.Nursery
) -> None:
    stayed = stage.peer()
    thread_id = await stage.start(stayed)
    turn_id, turn = await stage.begin(stayed, thread_id)
    recorded = Recorded(stage, nursery, stayed, turn)
    late: list[tuple[int, RecordingPeer, int]] = []
    seen_by_sequence = 0
    moves = [recorded.stage.handled, *recorded.moves()]
    for number, move in enumerate(moves):
        await (move() if number else stage.handled(thread_id))
        await stage.handled(thread_id)
        with replay_hint(move=number, way="snapshot"):
            fresh = stage.peer()
            since = len(fresh.log)
            assert not (await stage.resume(fresh, thread_id).answer())["replayed"]
            await stage.handled(thread_id)
            assert shown(fresh.log[since:]) == shown(stayed.log)
            late.append((number, fresh, since))
        now = shown(stayed.log)
        for index in range(1, len(stayed.log) + 1):
            if ClientState().all(stayed.log[:index]).seq is None:
                continue
            with replay_hint(move=number, index=index, way="afterSeq"):
                back, result = await back_by_sequence(stage, thread_id, stayed.log[:index])
                assert result["replayed"]
                assert shown(stayed.log[:index], back.log) == now
                stage.supervisor.peer_gone(back)
                seen_by_sequence += 1
    final = ClientState().all(stayed.log)
    assert final.ended == {turn_id: 1}
    assert final.turns[turn_id]["status"] == "interrupted"
    assert final.requests == {}
    assert final.name == "a name"
    first = recorded.turn.job.submissions[0].item_id
    assert list(final.items[turn_id]) == [first, "r", "call-1", "call-7", "call-0", "u2", "m"]
    for number, peer, since in late:
        with replay_hint(move=number, way="snapshot, to the end"):
            assert shown(peer.log[since:]) == final.shown()
    assert seen_by_sequence > 2000


async def test_a_snapshot_in_the_middle_of_a_text_has_the_text_so_far_and_the_rest_follows(
    stage: Stage, nursery: trio.Nursery
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    turn_id, turn = await stage.begin(owner, thread_id)
    await turn.post(ItemStarted(AgentMessageItem(id="m", started_at_ms=1)))
    words = [f"{number} " for number in range(40)]
    late = []
    for word in words:
        late.append(stage.peer())
        result = await stage.resume(late[-1], thread_id).answer()
        assert result["thread"]["turns"][0]["items"][-1]["text"] == "".join(words[: len(late) - 1])
        await turn.post(ItemDelta("agentMessage", "m", word))
    await stage.handled(thread_id)
    for peer in late:
        assert ClientState().all(peer.log).text(turn_id) == "".join(words)


async def test_who_leaves_right_after_its_snapshot_gets_exactly_what_followed_it(
    stage: Stage, nursery: trio.Nursery
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    turn_id, turn = await stage.begin(owner, thread_id)
    await turn.post(ItemStarted(AgentMessageItem(id="m", started_at_ms=1)))
    words = [f"{number} " for number in range(20)]
    for number, word in enumerate(words):
        brief = stage.peer()
        at = (await stage.resume(brief, thread_id).answer())["seq"]
        stage.supervisor.peer_gone(brief)
        answer = next(index for index, entry in enumerate(brief.log) if "result" in entry)
        await turn.post(ItemDelta("agentMessage", "m", word))
        with replay_hint(word=number):
            seen = brief.log[: answer + 1]
            back, result = await back_by_sequence(stage, thread_id, seen)
            assert result["replayed"]
            assert ClientState().all([*seen, *back.log]).text(turn_id) == "".join(words[: number + 1])
            followed = [entry["seq"] for entry in back.log if "seq" in entry]
            assert followed == [at + count for count in range(1, len(followed) + 1)]
            stage.supervisor.peer_gone(back)


WRONG: dict[str, tuple[Json, str]] = {
    "another epoch": ({"epoch": "other"}, "snapshot"),
    "no epoch": ({"epoch": None}, "snapshot"),
    "the future": ({"afterSeq": 10**6}, "snapshot"),
    "far beyond": ({"afterSeq": 2**63}, "snapshot"),
    "one more than there is": ({"afterSeq": "next"}, "snapshot"),
    "nothing seen yet": ({"afterSeq": 0}, "replay"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_cannot_be_replayed_is_a_fresh_snapshot(stage: Stage, case: str) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    known = ClientState().all(owner.log)
    changes, way = WRONG[case]
    params = {"afterSeq": 1, "epoch": known.epoch, **changes}
    if params["afterSeq"] == "next":
        params["afterSeq"] = (known.seq or 0) + 1
    back = stage.peer()
    result = await stage.resume(back, thread_id, **params).answer()
    await stage.handled(thread_id)
    assert result["replayed"] == (way == "replay")
    assert len(result["thread"]["turns"]) == (0 if way == "replay" else 1)
    assert result["epoch"] == known.epoch
    if way == "snapshot":
        assert result["seq"] == known.seq
        assert shown(back.log) == shown(owner.log)


async def test_what_the_ring_has_let_go_of_is_a_fresh_snapshot_and_what_it_holds_is_replayed(
    stage: Stage,
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(owner, thread_id)
    await turn.post(ItemStarted(AgentMessageItem(id="m", started_at_ms=1)))
    for _ in range(30):
        await turn.post(ItemDelta("agentMessage", "m", "x" * (RING_BYTES // 20)))
    await stage.handled(thread_id)
    ways = []
    for index in range(1, len(owner.log) + 1):
        if ClientState().all(owner.log[:index]).seq is None:
            continue
        with replay_hint(index=index):
            back, result = await back_by_sequence(stage, thread_id, owner.log[:index])
            ways.append(result["replayed"])
            assert shown(owner.log[:index], back.log) == shown(owner.log)
            stage.supervisor.peer_gone(back)
    assert ways == sorted(ways), "the older, the sooner gone"
    assert set(ways) == {True, False}


async def test_one_message_that_is_larger_than_the_ring_is_a_fresh_snapshot(stage: Stage) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(owner, thread_id)
    known = ClientState().all(owner.log)
    await turn.post(ItemStarted(AgentMessageItem(id="m", started_at_ms=1)))
    await turn.post(ItemDelta("agentMessage", "m", "x" * (RING_BYTES + 1)))
    await stage.handled(thread_id)
    before = [entry for entry in owner.log if entry.get("seq", 0) <= (known.seq or 0)]
    back, result = await back_by_sequence(stage, thread_id, before)
    assert not result["replayed"]
    assert shown(before, back.log) == shown(owner.log)
    # Whoever has seen all of it has missed nothing.
    _, result = await back_by_sequence(stage, thread_id, owner.log)
    assert result["replayed"]


async def test_a_thread_that_was_unloaded_meanwhile_never_replays_the_numbers_of_its_former_life(
    stage: Stage,
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    lives = [list(owner.log)]
    for _ in range(3):
        stage.shut_down(thread_id)
        await stage.actor(thread_id).finished.wait()
        again = stage.peer()
        await stage.resume(again, thread_id).answer()
        await stage.whole_turn(again, thread_id)
        await stage.handled(thread_id)
        lives.append(list(again.log))
        final = shown(again.log)
        for log in lives:
            for index in range(1, len(log) + 1):
                if ClientState().all(log[:index]).seq is None:
                    continue
                with replay_hint(index=index, lives=len(lives)):
                    back, _ = await back_by_sequence(stage, thread_id, log[:index])
                    assert shown(log[:index], back.log) == final
                    stage.supervisor.peer_gone(back)
        stage.supervisor.peer_gone(again)


async def test_who_left_before_the_usage_that_follows_its_snapshot_gets_it_with_the_replay(
    stage: Stage,
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(owner, thread_id)
    await turn.post(ModelResponded("resp", TokenCounts(total_tokens=5)))
    turn.end()
    await owner.got("turn/completed")
    late = stage.peer()
    await stage.resume(late, thread_id).answer()
    await stage.handled(thread_id)
    methods = [entry.get("method") for entry in late.log]
    before = late.log[: methods.index("thread/tokenUsage/updated")]
    back, result = await back_by_sequence(stage, thread_id, before)
    assert result["replayed"]
    await stage.handled(thread_id)
    assert shown(before, back.log)["usage"] == shown(owner.log)["usage"]
    assert shown(owner.log)["usage"] is not None


async def test_who_comes_back_to_an_unloaded_thread_gets_a_snapshot_and_numbers_without_a_gap(
    stage: Stage,
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    stage.shut_down(thread_id)
    await stage.actor(thread_id).finished.wait()
    back, result = await back_by_sequence(stage, thread_id, owner.log)
    assert not result["replayed"]
    await stage.whole_turn(back, thread_id)
    numbers = [entry["seq"] for entry in back.log if "seq" in entry]
    assert numbers == list(range(result["seq"] + 1, result["seq"] + 1 + len(numbers)))


async def test_only_who_is_attached_gets_numbers(stage: Stage) -> None:
    owner, stranger = stage.peer(), stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    known = ClientState().all(owner.log).seq
    assert stranger.params("thread/status/changed")
    assert all("seq" not in entry for entry in stranger.log)
    # Had it a number, who comes back would take it for the last one seen and lose what came before.
    await stage.unsubscribe(owner, thread_id).answer()
    await stage.resume(stranger, thread_id).answer()
    await stage.whole_turn(stranger, thread_id)
    await stage.handled(thread_id)
    assert len(owner.params("thread/status/changed")) == 4
    assert ClientState().all(owner.log).seq == known
    again = await stage.resume(
        owner, thread_id, afterSeq=known, epoch=ClientState().all(owner.log).epoch
    ).answer()
    assert again["replayed"]
    await stage.handled(thread_id)
    assert shown(owner.log) == shown(stranger.log[1:])
