"""Questions to the clients: one id, the first answer wins, every other is harmless."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agent.events import ApprovalFailed
from tests.actors.stage import Asked, Stage, question
from tests.support.in_memory import PuppetTurn, RecordingPeer


async def asking(
    stage: Stage, nursery: trio.Nursery, peer: RecordingPeer, thread_id: str, *, count: int = 1
) -> tuple[PuppetTurn, list[Asked], list[int]]:
    """A turn with ``count`` open questions: the turn, the questions and their request ids."""
    _, turn = await stage.begin(peer, thread_id)
    asked = [Asked() for _ in range(count)]
    for number, each in enumerate(asked):
        nursery.start_soon(each.ask, turn, question(f"call-{number}", "touch", str(number)))
        await peer.until(lambda _, number=number: len(requests(peer)) > number)  # type: ignore[misc]
    return turn, asked, [entry["id"] for entry in requests(peer)]


def requests(peer: RecordingPeer) -> list[dict[str, Any]]:
    return [entry for entry in peer.log if "method" in entry and "id" in entry]


async def test_a_question_is_announced_by_the_status_shown_as_started_and_then_asked(
    stage: Stage, nursery: trio.Nursery
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    await stage.begin(peer, thread_id)
    turn = stage.runners[0].turns[0]
    peer.log.clear()
    nursery.start_soon(Asked().ask, turn, question())
    await peer.until(lambda _: bool(requests(peer)))
    assert peer.methods() == [
        "thread/status/changed", "item/started", "item/commandExecution/requestApproval",
    ]  # fmt: skip
    assert peer.params("thread/status/changed")[0]["status"]["activeFlags"] == ["waitingOnApproval"]
    assert "seq" not in requests(peer)[0]
    assert "emittedAtMs" not in requests(peer)[0]


@pytest.mark.parametrize("decision", ["accept", "acceptForSession", "decline", "cancel"])
async def test_an_answer_reaches_the_turn_and_everybody_is_told(
    stage: Stage, nursery: trio.Nursery, decision: str
) -> None:
    asker, other = stage.peer(), stage.peer()
    thread_id = await stage.start(asker)
    _, (asked,), (request_id,) = await asking(stage, nursery, asker, thread_id)
    await stage.resume(other, thread_id).answer()
    asker.log.clear()
    stage.answer(other, request_id, {"decision": decision})
    await asked.done.wait()
    assert asked.answers == [decision]
    assert asker.methods() == ["serverRequest/resolved", "thread/status/changed"]
    assert other.params("serverRequest/resolved") == [{"threadId": thread_id, "requestId": request_id}]


@pytest.mark.parametrize(
    "answer",
    [
        None, 5, "accept", [], {}, {"decision": None}, {"decision": "maybe"}, {"decision": ["accept"]},
        {"decision": {"acceptWithExecpolicyAmendment": {}}},
        {"decision": {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": "ls"}}},
        {"answers": {}},
    ],
)  # fmt: skip
async def test_an_answer_that_cannot_be_read_fails_the_command_and_not_the_turn(
    stage: Stage, nursery: trio.Nursery, answer: Any
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer, ephemeral=True)
    turn, (asked,), (request_id,) = await asking(stage, nursery, peer, thread_id)
    stage.answer(peer, request_id, answer)
    await asked.done.wait()
    assert isinstance(asked.answers[0], ApprovalFailed)
    turn.end()
    assert (await peer.got("turn/completed"))["turn"]["status"] == "completed"


async def test_an_error_as_the_answer_fails_the_command_and_not_the_turn(
    stage: Stage, nursery: trio.Nursery
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer, ephemeral=True)
    turn, (asked,), (request_id,) = await asking(stage, nursery, peer, thread_id)
    stage.answer(peer, request_id, None, failed=True)
    await asked.done.wait()
    assert isinstance(asked.answers[0], ApprovalFailed)
    turn.end()
    assert (await peer.got("turn/completed"))["turn"]["status"] == "completed"


async def test_late_duplicate_and_foreign_answers_change_nothing(stage: Stage, nursery: trio.Nursery) -> None:
    peer, other = stage.peer(), stage.peer()
    thread_id, elsewhere = await stage.start(peer), await stage.start(other)
    turn, asked, ids = await asking(stage, nursery, peer, thread_id, count=2)
    for foreign in (-1, 999, "0", str(ids[0]), 2**62):
        stage.answer(other, foreign, {"decision": "accept"})
    await stage.handled(thread_id)
    assert [each.answers for each in asked] == [[], []]

    stage.answer(peer, ids[0], {"decision": "decline"})
    stage.answer(other, ids[0], {"decision": "accept"})
    stage.answer(peer, ids[0], {"decision": "decline"})
    await asked[0].done.wait()
    await stage.handled(thread_id)
    assert (asked[0].answers, asked[1].answers) == (["decline"], [])
    assert len(peer.params("serverRequest/resolved")) == 1

    turn.end()
    await peer.got("turn/completed")
    before = len(peer.log)
    stage.answer(peer, ids[0], {"decision": "accept"})
    stage.answer(peer, ids[1], {"decision": "accept"})
    await stage.handled(thread_id)
    assert len(peer.log) == before
    await stage.whole_turn(other, elsewhere)


async def test_the_status_waits_until_the_last_question_is_answered(
    stage: Stage, nursery: trio.Nursery
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, asked, ids = await asking(stage, nursery, peer, thread_id, count=3)
    peer.log.clear()
    for each, request_id in zip(asked, ids, strict=True):
        stage.answer(peer, request_id, {"decision": "accept"})
        await each.done.wait()
    assert peer.methods() == ["serverRequest/resolved"] * 3 + ["thread/status/changed"]


async def test_who_attaches_is_asked_what_is_pending_under_the_same_ids_after_the_answer(
    stage: Stage, nursery: trio.Nursery
) -> None:
    peer, late = stage.peer(), stage.peer()
    thread_id = await stage.start(peer)
    _, asked, ids = await asking(stage, nursery, peer, thread_id, count=2)
    stage.answer(peer, ids[0], {"decision": "accept"})
    await asked[0].done.wait()
    late.log.clear()
    result = await stage.resume(late, thread_id).answer()
    assert result["thread"]["status"] == {"type": "active", "activeFlags": ["waitingOnApproval"]}
    assert requests(late) == [entry for entry in requests(peer) if entry["id"] == ids[1]]
    assert late.methods()[0] == "result"
    stage.answer(late, ids[1], {"decision": "decline"})
    await asked[1].done.wait()
    assert asked[1].answers == ["decline"]


async def test_a_question_outlives_every_client(stage: Stage, nursery: trio.Nursery) -> None:
    peer, back = stage.peer(), stage.peer()
    thread_id = await stage.start(peer)
    _, (asked,), (request_id,) = await asking(stage, nursery, peer, thread_id)
    stage.supervisor.peer_gone(peer)
    await stage.handled(thread_id)
    assert asked.answers == []
    await stage.resume(back, thread_id).answer()
    assert [entry["id"] for entry in requests(back)] == [request_id]
    stage.answer(back, request_id, {"decision": "accept"})
    await asked.done.wait()
    assert asked.answers == ["accept"]


async def test_a_client_that_has_unsubscribed_can_still_answer(stage: Stage, nursery: trio.Nursery) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, (asked,), (request_id,) = await asking(stage, nursery, peer, thread_id)
    assert await stage.unsubscribe(peer, thread_id).answer() == {"status": "unsubscribed"}
    assert await stage.unsubscribe(peer, thread_id).answer() == {"status": "notSubscribed"}
    peer.log.clear()
    stage.answer(peer, request_id, {"decision": "accept"})
    await asked.done.wait()
    assert peer.methods() == ["thread/status/changed"], "it gets broadcasts only"


async def test_what_was_accepted_for_the_session_is_known_to_the_next_turn(
    stage: Stage, nursery: trio.Nursery
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer, ephemeral=True)
    turn, asked, ids = await asking(stage, nursery, peer, thread_id, count=2)
    stage.answer(peer, ids[0], {"decision": "acceptForSession"})
    amendment = {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["touch"]}}
    stage.answer(peer, ids[1], {"decision": amendment})
    for each in asked:
        await each.done.wait()
    turn.end()
    await peer.got("turn/completed")
    _, again = await stage.begin(peer, thread_id)
    assert again.job.settings.approved_commands == {("touch", "0")}
    assert again.job.settings.approved_prefixes == (("touch",),)
