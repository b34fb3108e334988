"""Messages for a running turn, and settings that stick."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from actors.messages import Leave
from agent.events import Submission, TurnOutcome
from agent.turn import TurnControl
from protocol.threads import TurnError
from tests.actors.stage import Stage, says
from tests.support.in_memory import PuppetTurn


def texts(submissions: list[Submission]) -> list[str]:
    return [part.text for entry in submissions for part in entry.input if part.type == "text"]


async def test_a_steer_reaches_the_running_turn(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id)
    assert await stage.steer(peer, thread_id, turn_id, "also").answer() == {"turnId": turn_id}
    assert (await stage.turn(peer, thread_id, "too").answer())["turn"]["id"] == turn_id
    assert texts(turn.control.unconsumed) == ["also", "too"]
    assert len(peer.params("turn/started")) == 1


async def test_a_steer_behind_the_end_of_the_loop_still_reaches_the_model_in_the_same_turn(
    stage: Stage,
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id)
    await says(turn, "m1", "first")
    # The loop has ended, the actor does not know it yet, and takes the steer first.
    steered = stage.steer(peer, thread_id, turn_id, "late")
    turn.end()
    assert await steered.answer() == {"turnId": turn_id}
    again = await stage.runners[0].turn(2)
    assert again.job.turn_id == turn_id
    assert texts(again.job.submissions) == ["late"]
    assert len(again.job.context) == 1
    assert peer.params("turn/completed") == []
    again.end()
    assert (await peer.got("turn/completed"))["turn"]["id"] == turn_id
    assert stage.terminal_lines(thread_id) == [turn_id]


async def test_a_steer_behind_the_end_of_the_turn_is_refused(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id)
    turn.end()
    await peer.got("turn/completed")
    with pytest.raises(Exception, match="no active turn to steer"):
        await stage.steer(peer, thread_id, turn_id).answer()


async def test_every_steer_that_was_taken_reaches_the_model_in_whatever_instant_it_comes(
    stage: Stage, nursery: trio.Nursery
) -> None:
    """The steer comes after each number of scheduling rounds around the end of the loop."""
    peer = stage.peer()
    thread_id = await stage.start(peer, ephemeral=True)
    for rounds in range(8):
        turn_id, turn = await stage.begin(peer, thread_id)
        seen = len(stage.runners[0].turns)
        turn.end()
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        reply = stage.steer(peer, thread_id, turn_id, f"round {rounds}")
        await reply._done.wait()
        if reply.failure is None:
            again = await stage.runners[0].turn(seen + 1)
            assert texts(again.job.submissions) == [f"round {rounds}"], f"lost at round {rounds}"
            again.end()
        await peer.until(lambda _, turn_id=turn_id: turn_id in ended(peer.params("turn/completed")))  # type: ignore[misc]


@pytest.mark.parametrize("how", ["interrupt", "failure", "unloading"])
async def test_what_was_said_to_a_turn_that_ends_without_taking_it_is_in_the_transcript(
    how: str, stage: Stage
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id, "first")
    await stage.steer(peer, thread_id, turn_id, "second").answer()
    if how == "interrupt":
        await stage.interrupt(peer, thread_id, turn_id).answer()
    elif how == "failure":
        turn.end(TurnOutcome(error=TurnError(message="broken", codex_error_info="other")))
    else:
        stage.actor(thread_id).mailbox.put_always(Leave())
    await peer.got("turn/completed")
    methods = peer.methods()
    shown = [note["item"]["content"][0]["text"] for note in peer.params("item/completed")]
    assert shown == ["first", "second"]
    assert methods.index("turn/completed") > max(
        index for index, method in enumerate(methods) if method == "item/completed"
    )
    [kept] = (await stage.resume(peer, thread_id).answer())["thread"]["turns"]
    assert [item["content"][0]["text"] for item in kept["items"]] == ["first", "second"]


def ended(notes: list[dict[str, Any]]) -> list[str]:
    return [note["turn"]["id"] for note in notes]


async def test_an_item_posted_in_the_instant_of_a_steer_is_known_to_both_or_to_neither(
    stage: Stage,
) -> None:
    """The turn learns of the cancelled stream where it posts; then the event must not have been taken."""
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, turn = await stage.begin(peer, thread_id)
    control = TurnControl()
    handed_over = False
    with control._streaming():
        control.steer(Submission("s", []))
        await says(turn, "m", "half")
        handed_over = True
    await stage.handled(thread_id)
    assert bool(peer.params("item/completed")) == handed_over


async def test_a_failed_turn_can_be_followed_by_another(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, turn = await stage.begin(peer, thread_id)
    turn.end(TurnOutcome(error=TurnError(message="broken", codex_error_info="other")))
    await peer.got("turn/completed")
    await stage.whole_turn(peer, thread_id)


async def test_the_model_is_told_once_that_the_turn_before_was_interrupted(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, _ = await stage.begin(peer, thread_id)
    await stage.interrupt(peer, thread_id, turn_id).answer()
    jobs = []
    for _ in range(2):
        ends = len(peer.params("turn/completed"))
        _, turn = await stage.begin(peer, thread_id)
        jobs.append(turn.job.interrupted_before)
        turn.end()
        await peer.got("turn/completed", ends + 1)
    assert jobs == [True, False]


async def test_overrides_stick_and_are_announced_only_when_they_change_something(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    steps: list[tuple[dict[str, Any], bool]] = [
        ({}, False),
        ({"model": "other"}, True),
        ({"model": "other"}, False),
        ({"effort": "high", "approvalPolicy": "never"}, True),
        ({}, False),
        ({"sandboxPolicy": {"type": "dangerFullAccess"}}, True),
        ({"sandboxPolicy": {"type": "dangerFullAccess"}}, False),
        ({"cwd": "/tmp"}, True),
        ({"outputSchema": {"type": "object"}}, False),
    ]
    turn: PuppetTurn | None = None
    for number, (params, changes) in enumerate(steps):
        peer.log.clear()
        _, turn = await stage.begin(peer, thread_id, **params)
        assert bool(peer.params("thread/settings/updated")) == changes, (number, params)
        if changes:
            assert peer.methods().index("thread/settings/updated") < peer.methods().index("result")
        turn.end()
        await peer.got("turn/completed")
    assert turn is not None
    settings = turn.job.settings
    assert (settings.model, settings.effort, settings.approval_policy, settings.cwd) == (
        "other", "high", "never", "/tmp",
    )  # fmt: skip
    _, turn = await stage.begin(peer, thread_id)
    assert turn.job.settings.output_schema is None, "a schema is for one turn"


async def test_overrides_survive_the_way_over_the_disk(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, turn = await stage.begin(peer, thread_id, model="other", effort="high", approvalPolicy="never")
    turn.end()
    await peer.got("turn/completed")
    actor = stage.actor(thread_id)
    stage.shut_down(thread_id)
    await actor.finished.wait()
    result = await stage.resume(peer, thread_id).answer()
    assert (result["model"], result["reasoningEffort"], result["approvalPolicy"]) == (
        "other", "high", "never",
    )  # fmt: skip
