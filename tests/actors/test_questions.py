"""Questions of every kind: who is asked, what the turn is told, and what happens while nobody is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.questions import KINDS
from agent.events import ApprovalFailed, ClientToolCall, Question, TurnOutcome, UserQuestions
from protocol.dynamic_tools import DynamicToolCallResult
from protocol.items import DynamicToolCallItem
from protocol.server_requests import SERVER_REQUESTS, UserInputQuestion, UserInputResult
from tests.actors.stage import Asked, Stage, opened, question
from tests.support.in_memory import PuppetTurn, RecordingPeer

COLOUR = UserQuestions("call-1", [UserInputQuestion(id="c", header="Colour", question="Which?")])
TOOL_ITEM = DynamicToolCallItem(
    id="call-1", tool="lookup", arguments={"k": 1}, status="inProgress", started_at_ms=1
)
LOOKUP = ClientToolCall(TOOL_ITEM)
RED = {"answers": {"c": {"answers": ["Red"]}}}
FOUND = {"contentItems": [{"type": "inputText", "text": "found"}], "success": True}


@asynccontextmanager
async def asked(
    stage: Stage, what: Question[Any]
) -> AsyncIterator[tuple[RecordingPeer, str, PuppetTurn, Asked]]:
    """A turn of a subscribed client that has just asked something."""
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, turn = await stage.begin(peer, thread_id)
    put = Asked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put.ask, turn, what)
        method = KINDS[type(what)].method
        await peer.until(lambda log: any(entry.get("method") == method for entry in log))
        yield peer, thread_id, turn, put
        nursery.cancel_scope.cancel()


def request_of(peer: RecordingPeer, method: str) -> dict[str, Any]:
    return [entry for entry in peer.log if entry.get("method") == method][-1]


def test_the_kinds_are_exactly_the_server_requests_there_are() -> None:
    assert {kind.method for kind in KINDS.values()} == set(SERVER_REQUESTS)


async def test_a_question_to_the_user_has_a_flag_and_no_item_and_its_answer_goes_to_the_turn(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as stage, asked(stage, COLOUR) as (peer, thread_id, _, put):
        request = request_of(peer, "item/tool/requestUserInput")
        assert request["params"]["itemId"] == "call-1"
        assert request["params"]["isBlocking"] is True
        assert request["params"]["questions"][0]["isOther"] is True
        assert peer.params("item/started") == []
        assert peer.params("thread/status/changed")[-1]["status"]["activeFlags"] == ["waitingOnUserInput"]
        stage.answer(peer, request["id"], RED)
        await put.done.wait()
        assert put.answers == [UserInputResult.from_wire(RED)]
        await stage.handled(thread_id)
        assert peer.params("thread/status/changed")[-1]["status"]["activeFlags"] == []
        assert peer.params("serverRequest/resolved")[-1]["requestId"] == request["id"]


async def test_a_call_of_a_client_s_tool_has_an_item_and_no_flag(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage, asked(stage, LOOKUP) as (peer, _, _, put):
        request = request_of(peer, "item/tool/call")
        assert request["params"]["tool"] == "lookup"
        assert request["params"]["arguments"] == {"k": 1}
        assert request["params"]["namespace"] is None
        assert peer.params("item/started")[-1]["item"]["type"] == "dynamicToolCall"
        assert peer.params("thread/status/changed")[-1]["status"]["activeFlags"] == []
        stage.answer(peer, request["id"], FOUND)
        await put.done.wait()
        assert put.answers == [DynamicToolCallResult.from_wire(FOUND)]


@pytest.mark.parametrize("what", [COLOUR, LOOKUP], ids=["user input", "client tool"])
@pytest.mark.parametrize(
    "nonsense", [None, {}, [], "Red", {"answers": 1}, {"contentItems": [{"type": "x"}], "success": True}]
)
async def test_an_answer_that_cannot_be_read_is_told_to_the_turn(
    tmp_path: Path, what: Question[Any], nonsense: object
) -> None:
    async with opened(tmp_path) as stage, asked(stage, what) as (peer, _, _, put):
        stage.answer(peer, request_of(peer, KINDS[type(what)].method)["id"], nonsense)
        await put.done.wait()
        assert put.answers == [ApprovalFailed("the client's answer could not be read")]


@pytest.mark.parametrize("what", [COLOUR, LOOKUP], ids=["user input", "client tool"])
async def test_the_first_answer_wins_and_everybody_is_told(tmp_path: Path, what: Question[Any]) -> None:
    async with opened(tmp_path) as stage, asked(stage, what) as (peer, thread_id, _, put):
        method = KINDS[type(what)].method
        late = stage.peer()
        await stage.resume(late, thread_id).answer()
        await late.got(method)
        request = request_of(late, method)
        assert request["id"] == request_of(peer, method)["id"]
        stage.answer(late, request["id"], None, failed=True)
        stage.answer(peer, request["id"], RED if what is COLOUR else FOUND)
        await put.done.wait()
        assert put.answers == [ApprovalFailed("the client answered with an error")]
        await stage.handled(thread_id)
        for each in (peer, late):
            assert [note["requestId"] for note in each.params("serverRequest/resolved")] == [request["id"]]


@pytest.mark.parametrize("what", [COLOUR, LOOKUP], ids=["user input", "client tool"])
async def test_the_end_of_the_turn_withdraws_the_question(tmp_path: Path, what: Question[Any]) -> None:
    async with opened(tmp_path) as stage, asked(stage, what) as (peer, thread_id, _, _):
        request = request_of(peer, KINDS[type(what)].method)
        turn_id = peer.params("turn/started")[-1]["turn"]["id"]
        await stage.interrupt(peer, thread_id, turn_id).answer()
        assert peer.params("serverRequest/resolved")[-1]["requestId"] == request["id"]
        stage.answer(peer, request["id"], RED)
        await stage.handled(thread_id)
        assert peer.params("thread/status/changed")[-1]["status"] == {"type": "idle"}


# -- while nobody is there ----------------------------------------------------------------------------------

WAIT = "server_requests.unattended_secs=60"


@pytest.fixture
def mock_clock() -> MockClock:
    """Stands still unless moved; a test that waits for nothing is brought to its limit after 10 s."""
    return MockClock(autojump_threshold=10)


async def test_without_a_policy_a_question_waits_for_ever(tmp_path: Path, mock_clock: MockClock) -> None:
    async with opened(tmp_path, limit=10**9) as stage, asked(stage, question()) as (peer, thread_id, _, put):
        await stage.unsubscribe(peer, thread_id).answer()
        mock_clock.jump(10**6)
        await stage.handled(thread_id)
        assert put.answers == []


async def test_after_the_wait_an_approval_is_declined_and_a_warning_says_so(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with (
        opened(tmp_path, WAIT, limit=10**6) as stage,
        asked(stage, question()) as (peer, thread_id, _, put),
    ):
        seen = stage.actor(thread_id).seq
        await stage.unsubscribe(peer, thread_id).answer()
        mock_clock.jump(59)
        await stage.handled(thread_id)
        assert put.answers == []
        mock_clock.jump(1)
        await put.done.wait()
        assert put.answers == ["decline"]
        epoch = stage.supervisor._step.epoch
        await stage.resume(peer, thread_id, afterSeq=seen, epoch=epoch).answer()
        await peer.got("warning")
        assert "Nobody was attached for 60 s" in peer.params("warning")[-1]["message"]
        assert peer.params("serverRequest/resolved")


@pytest.mark.parametrize("what", [COLOUR, LOOKUP], ids=["user input", "client tool"])
async def test_the_policy_answers_the_other_kinds_too(
    tmp_path: Path, what: Question[Any], mock_clock: MockClock
) -> None:
    async with (
        opened(tmp_path, WAIT, "server_requests.unattended=cancel", limit=10**6) as stage,
        asked(stage, what) as (peer, thread_id, turn, put),
    ):
        stage.supervisor.peer_gone(peer)
        await stage.handled(thread_id)
        mock_clock.jump(60)
        await put.done.wait()
        assert put.answers == [ApprovalFailed("nobody was there to answer", ends_turn=True)]
        watcher = stage.peer()
        turn.end(TurnOutcome(cancelled_by_user=True))
        await watcher.until(lambda _: bool(watcher.params("thread/status/changed")))
        assert watcher.params("thread/status/changed")[-1]["status"] == {"type": "idle"}


async def test_who_comes_back_in_time_is_asked_again_and_the_wait_begins_anew(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with (
        opened(tmp_path, WAIT, limit=10**6) as stage,
        asked(stage, question()) as (peer, thread_id, _, put),
    ):
        mock_clock.jump(1000)
        for _ in range(3):
            await stage.unsubscribe(peer, thread_id).answer()
            mock_clock.jump(50)
            await stage.resume(peer, thread_id).answer()
            mock_clock.jump(100)
            await stage.handled(thread_id)
        assert put.answers == []
        assert len([entry for entry in peer.log if "requestApproval" in entry.get("method", "")]) == 4
