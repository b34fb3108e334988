"""Goals: when the daemon starts turns by itself, and when it stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.deadlines import RESTS, RETRY_SECONDS
from actors.goals import MAX_OBJECTIVE_CHARS, MOST_IDLE_TURNS, ClearGoal, GetGoal, SetGoal
from agent.events import ApprovalFailed, ContextAppended, GoalReport, ModelResponded, TurnOutcome
from persistence.store import Batch
from protocol.errors import RpcError
from protocol.goal_methods import GoalSetParams
from protocol.threads import TokenCounts, TurnError
from tests.actors.stage import Stage, opened, says
from tests.support.in_memory import PuppetRunner, PuppetTurn, RecordingPeer

NOBODY = "01a1f8dd-302e-7901-bcf2-98a301bfdc0b"


@pytest.fixture
def mock_clock() -> MockClock:
    """Stands still unless moved; a test that waits for nothing is brought to its limit after 10 s."""
    return MockClock(autojump_threshold=10)


async def set_goal(stage: Stage, peer: RecordingPeer, thread_id: str, **params: Any) -> dict[str, Any]:
    reply = peer.reply()
    act = SetGoal(GoalSetParams.from_wire({"threadId": thread_id, **params}))
    stage.supervisor.perform(thread_id, act, reply)
    goal: dict[str, Any] = (await reply.answer())["goal"]
    return goal


async def get_goal(stage: Stage, peer: RecordingPeer, thread_id: str) -> dict[str, Any] | None:
    reply = peer.reply()
    stage.supervisor.perform(thread_id, GetGoal(), reply)
    goal: dict[str, Any] | None = (await reply.answer())["goal"]
    return goal


async def clear_goal(stage: Stage, peer: RecordingPeer, thread_id: str) -> bool:
    reply = peer.reply()
    stage.supervisor.perform(thread_id, ClearGoal(), reply)
    cleared: bool = (await reply.answer())["cleared"]
    return cleared


def runner_of(stage: Stage, thread_id: str) -> PuppetRunner:
    runner = stage.actor(thread_id)._runtime.runner
    assert isinstance(runner, PuppetRunner)
    return runner


async def next_turn(stage: Stage, thread_id: str, number: int) -> PuppetTurn:
    return await runner_of(stage, thread_id).turn(number)


async def works(turn: PuppetTurn) -> None:
    """The model calls a tool."""
    call = {"type": "function_call", "call_id": "c", "name": "exec_command", "arguments": "{}"}
    await turn.post(ContextAppended((call,)))


async def costs(turn: PuppetTurn, fresh: int, cached: int = 0, output: int = 0) -> None:
    usage = TokenCounts(
        total_tokens=fresh + cached + output,
        input_tokens=fresh + cached,
        cached_input_tokens=cached,
        output_tokens=output,
    )
    await turn.post(ModelResponded("resp", usage))


def statuses(peer: RecordingPeer) -> list[str]:
    return [note["goal"]["status"] for note in peer.params("thread/goal/updated")]


async def test_an_active_goal_starts_a_turn_without_a_message_and_says_why_to_the_model_only(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        goal = await set_goal(stage, peer, thread_id, objective="  reach it ", tokenBudget=100)
        assert goal["objective"] == "reach it"
        assert (goal["status"], goal["tokensUsed"], goal["tokenBudget"]) == ("active", 0, 100)
        turn = await next_turn(stage, thread_id, 1)
        assert turn.job.submissions == []
        assert turn.job.has_goal
        assert turn.job.opening_note is not None
        assert "reach it" in turn.job.opening_note
        await peer.got("turn/started")
        assert peer.params("item/started") == []
        methods = peer.methods()
        assert methods.index("thread/goal/updated") < methods.index("turn/started")


async def test_turns_follow_each_other_until_the_model_says_that_it_is_complete(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        for number in (1, 2, 3):
            turn = await next_turn(stage, thread_id, number)
            await works(turn)
            await costs(turn, 10, cached=100, output=5)
            if number < 3:
                turn.end()
        told = await turn.port.ask(GoalReport("complete"))
        assert isinstance(told, str)
        assert json.loads(told)["goal"]["status"] == "complete"
        turn.end()
        await peer.got("turn/completed", 3)
        await stage.handled(thread_id)
        assert len(runner_of(stage, thread_id).turns) == 3
        goal = await get_goal(stage, peer, thread_id)
        assert goal is not None
        assert (goal["status"], goal["tokensUsed"]) == ("complete", 45)
        assert statuses(peer)[-1] == "complete"
        completed = peer.params("thread/goal/updated")[-1]
        assert completed["turnId"] == peer.params("turn/started")[-1]["turn"]["id"]


async def test_a_used_up_budget_is_told_to_the_running_turn_and_no_other_follows(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it", tokenBudget=20)
        turn = await next_turn(stage, thread_id, 1)
        await works(turn)
        await costs(turn, 10, output=5)
        await stage.handled(thread_id)
        assert turn.control.notes == []
        await costs(turn, 10, output=5)
        await peer.until(lambda _: "budgetLimited" in statuses(peer))
        await stage.handled(thread_id)
        assert len(turn.control.notes) == 1
        turn.end()
        await peer.got("turn/completed")
        await stage.handled(thread_id)
        assert len(runner_of(stage, thread_id).turns) == 1
        again = await set_goal(stage, peer, thread_id, status="active")
        assert again["status"] == "budgetLimited"
        more = await set_goal(stage, peer, thread_id, status="active", tokenBudget=None)
        assert (more["status"], more["tokenBudget"], more["tokensUsed"]) == ("active", None, 30)
        await next_turn(stage, thread_id, 2)


async def test_an_interrupt_pauses_the_goal(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        turn = await next_turn(stage, thread_id, 1)
        await stage.interrupt(peer, thread_id, turn.job.turn_id).answer()
        await stage.handled(thread_id)
        assert statuses(peer)[-1] == "paused"
        assert len(runner_of(stage, thread_id).turns) == 1


@pytest.mark.parametrize(
    ("info", "status"), [("usageLimitExceeded", "usageLimited"), ("internalServerError", "paused")]
)
async def test_a_failed_turn_stops_the_goal_and_says_so(tmp_path: Path, info: str, status: str) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        turn = await next_turn(stage, thread_id, 1)
        turn.end(TurnOutcome(error=TurnError(message="no", codex_error_info=info)))
        await peer.got("warning")
        assert statuses(peer)[-1] == status
        await stage.handled(thread_id)
        assert len(runner_of(stage, thread_id).turns) == 1


async def test_turns_that_only_talk_come_slower_and_then_not_at_all(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        for number in range(1, MOST_IDLE_TURNS + 1):
            turn = await next_turn(stage, thread_id, number)
            await says(turn, f"msg-{number}", "still thinking")
            turn.end()
            await peer.got("turn/completed", number)
            if number < MOST_IDLE_TURNS and RESTS[number]:
                await wait_all_tasks_blocked()
                assert len(runner_of(stage, thread_id).turns) == number
                mock_clock.jump(RESTS[number])
        await peer.got("warning")
        assert statuses(peer)[-1] == "paused"
        assert "did nothing but talk" in peer.params("warning")[-1]["message"]
        mock_clock.jump(1000)
        await stage.handled(thread_id)
        assert len(runner_of(stage, thread_id).turns) == MOST_IDLE_TURNS


async def test_what_waits_in_the_mailbox_goes_before_the_next_turn_of_the_goal(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        goal = stage.peer().reply()
        act = SetGoal(GoalSetParams(thread_id=thread_id, objective="reach it"))
        stage.supervisor.perform(thread_id, act, goal)
        mine = stage.turn(peer, thread_id, "first me")
        turn_id = (await mine.answer())["turn"]["id"]
        turn = await next_turn(stage, thread_id, 1)
        assert turn.job.turn_id == turn_id
        assert turn.job.opening_note is None
        turn.end()
        following = await next_turn(stage, thread_id, 2)
        assert following.job.opening_note is not None


async def test_a_goal_works_on_while_nobody_is_attached(tmp_path: Path) -> None:
    async with opened(tmp_path, "thread_unload_delay_secs=0") as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        await stage.unsubscribe(peer, thread_id).answer()
        for number in (1, 2, 3):
            turn = await next_turn(stage, thread_id, number)
            await works(turn)
            if number == 3:
                await turn.port.ask(GoalReport("blocked"))
            turn.end()
        await peer.got("thread/closed")
        assert statuses(peer)[-1] == "blocked"


async def test_a_cleared_goal_starts_no_more_turns_and_the_model_finds_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        assert await clear_goal(stage, peer, thread_id) is False
        assert peer.params("thread/goal/cleared") == []
        await set_goal(stage, peer, thread_id, objective="reach it")
        turn = await next_turn(stage, thread_id, 1)
        assert await clear_goal(stage, peer, thread_id) is True
        assert len(peer.params("thread/goal/cleared")) == 1
        assert await turn.port.ask(GoalReport("complete")) == ApprovalFailed("this thread has no goal")
        turn.end()
        await peer.got("turn/completed")
        await stage.handled(thread_id)
        assert len(runner_of(stage, thread_id).turns) == 1
        assert await get_goal(stage, peer, thread_id) is None


async def test_a_goal_outlives_its_thread_s_life_in_memory_and_goes_on_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        turn = await next_turn(stage, thread_id, 1)
        await works(turn)
        await costs(turn, 7)
        finished = stage.actor(thread_id).finished
        stage.shut_down(thread_id)
        await finished.wait()
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        known = await get_goal(stage, peer, thread_id)
        assert known is not None
        assert (known["status"], known["tokensUsed"]) == ("active", 7)
        assert stage.supervisor.loaded_ids() == []
        await stage.resume(peer, thread_id).answer()
        note = await peer.got("thread/goal/updated")
        assert (note["turnId"], note["goal"]["status"]) == (None, "active")
        assert peer.params("thread/goal/cleared") == []
        await runner_of(stage, thread_id).turn(1)


async def test_a_draining_daemon_starts_no_turn_for_a_goal(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await set_goal(stage, peer, thread_id, objective="reach it")
        turn = await next_turn(stage, thread_id, 1)
        stage.supervisor.begin_drain()
        await works(turn)
        turn.end()
        await stage.supervisor.drained()
        await stage.handled(thread_id)
        assert len(runner_of(stage, thread_id).turns) == 1
        goal = await get_goal(stage, peer, thread_id)
        assert goal is not None
        assert goal["status"] == "active"


async def test_a_turn_that_cannot_be_recorded_is_not_tried_again_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        tries: list[float] = []

        def broken(batch: Batch) -> bool:
            begins = any(line.payload.get("type") == "task_started" for line in batch.lines)
            if begins:
                tries.append(trio.current_time())
            return begins and len(tries) < 3

        stage.store.broken = broken
        await set_goal(stage, peer, thread_id, objective="reach it")
        for number in (1, 2):
            while len(tries) < number:
                await stage.handled(thread_id)
            await stage.handled(thread_id)
            assert len(tries) == number
            mock_clock.jump(RETRY_SECONDS)
        await next_turn(stage, thread_id, 1)
        assert len(tries) == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective": "  "}, "goal objective must not be empty"),
        ({"objective": "x" * (MAX_OBJECTIVE_CHARS + 1)}, "goal objective must be at most 4000 characters"),
        ({"objective": "x", "tokenBudget": 0}, "goal budgets must be positive when provided"),
        ({"status": "active"}, "cannot update goal for thread {id}: no goal exists"),
    ],
)
async def test_a_goal_that_makes_no_sense_is_refused(
    tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        with pytest.raises(RpcError) as failure:
            await set_goal(stage, peer, thread_id, **params)
        assert failure.value.message == message.format(id=thread_id)
        assert peer.params("thread/goal/updated") == []


async def test_threads_that_are_nowhere_or_only_in_memory_have_no_goals(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        with pytest.raises(RpcError) as failure:
            await set_goal(stage, peer, NOBODY, objective="reach it")
        assert failure.value.message == f"thread not found: {NOBODY}"
        thread_id = await stage.start(peer, ephemeral=True)
        with pytest.raises(RpcError) as failure:
            await set_goal(stage, peer, thread_id, objective="reach it")
        assert failure.value.message == f"ephemeral thread does not support goals: {thread_id}"
