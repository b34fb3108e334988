"""Every started turn has exactly one end, whatever comes together."""

from __future__ import annotations

from itertools import pairwise, permutations, product
from typing import Any

import pytest
import trio

from actors.messages import TurnEnded
from agent.events import TurnOutcome
from protocol.threads import TurnError
from tests.actors.stage import Asked, Stage, question, says
from tests.support.in_memory import PuppetTurn, RecordingPeer, replay_hint

CAUSES = ("interrupt", "natural end", "failure", "cancel answer", "shutdown")
FAILURE = TurnOutcome(error=TurnError(message="broken", codex_error_info="other"))
CANCELLED = TurnOutcome(cancelled_by_user=True)


class Story:
    """One turn with one open question, and the causes that may end it."""

    def __init__(self, stage: Stage, peer: RecordingPeer, thread_id: str) -> None:
        self.stage, self.peer, self.thread_id = stage, peer, thread_id
        self.replies: list[Any] = []
        self.turn_id = ""
        self.request_id = -1

    async def begin(self, nursery: trio.Nursery) -> None:
        self.turn_id, self.turn = await self.stage.begin(self.peer, self.thread_id)
        self.asked = Asked()
        nursery.start_soon(self._ask, self.turn)
        await self.peer.until(lambda _: bool(requests(self.peer, self.turn_id)))
        self.request_id = requests(self.peer, self.turn_id)[0]["id"]

    async def _ask(self, turn: PuppetTurn) -> None:
        await self.asked.ask(turn, question())
        if self.asked.answers == ["cancel"]:
            turn.end(CANCELLED)

    def cause(self, name: str) -> None:
        stage = self.stage
        match name:
            case "interrupt":
                self.replies.append(stage.interrupt(self.peer, self.thread_id, self.turn_id))
            case "natural end":
                self.turn.end()
            case "failure":
                self.turn.end(FAILURE)
            case "cancel answer":
                stage.answer(self.peer, self.request_id, {"decision": "cancel"})
            case "shutdown":
                stage.shut_down(self.thread_id)


def requests(peer: RecordingPeer, turn_id: str) -> list[dict[str, Any]]:
    return [
        entry for entry in peer.log if "method" in entry and "id" in entry
        and entry["params"]["turnId"] == turn_id
    ]  # fmt: skip


def of_turn(peer: RecordingPeer, method: str, turn_id: str) -> list[dict[str, Any]]:
    return [params for params in peer.params(method) if params["turn"]["id"] == turn_id]


async def test_a_turn_ends_once_in_every_order_of_what_can_end_it(stage: Stage) -> None:
    peer = stage.peer()
    orders = [order for size in (1, 2, 3, 5) for order in permutations(CAUSES, size)]
    async with trio.open_nursery() as nursery:
        for order, together in product(orders, (True, False)):
            with replay_hint(order=order, together=together):
                ephemeral = len(order) == 5
                story = Story(stage, peer, await stage.start(peer, ephemeral=ephemeral))
                await story.begin(nursery)
                actor = stage.actor(story.thread_id)
                for name in order:
                    story.cause(name)
                    if not together:
                        await trio.testing.wait_all_tasks_blocked()
                await peer.until(lambda _, turn=story.turn_id: bool(of_turn(peer, "turn/completed", turn)))  # type: ignore[misc]
                await story.asked.done.wait()
                if "shutdown" not in order:
                    await stage.handled(story.thread_id)
                    stage.shut_down(story.thread_id)
                await actor.finished.wait()
                check(stage, peer, story, ephemeral=ephemeral)
            peer.log.clear()


def check(stage: Stage, peer: RecordingPeer, story: Story, *, ephemeral: bool) -> None:
    turn_id = story.turn_id
    (end,) = of_turn(peer, "turn/completed", turn_id)
    assert end["turn"]["status"] in {"completed", "interrupted", "failed"}
    assert len(of_turn(peer, "turn/started", turn_id)) == 1
    assert len(peer.params("serverRequest/resolved")) == 1
    assert all(reply._done.is_set() for reply in story.replies), "an interrupt was not answered"
    assert len(story.asked.answers) == 1
    assert stage.terminal_lines(story.thread_id) == ([] if ephemeral else [turn_id])
    shown = [params["status"] for params in peer.params("thread/status/changed")]
    assert all(one != other for one, other in pairwise(shown)), "a status was repeated"
    assert shown[-1]["type"] == ("systemError" if end["turn"]["status"] == "failed" else "idle")
    order = peer.methods()
    last_status = max(index for index, name in enumerate(order) if name == "thread/status/changed")
    assert last_status < order.index("turn/completed"), "the status comes before what it announces"


@pytest.mark.parametrize("another_runs", [False, True])
async def test_what_an_ended_turn_still_reports_reaches_nobody(stage: Stage, another_runs: bool) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id)
    stage.interrupt(peer, thread_id, turn_id)
    await peer.got("turn/completed")
    if another_runs:
        await stage.begin(peer, thread_id)
    before, lines = len(peer.log), len(stage.lines(thread_id))
    await says(turn, "late", "too late")
    asked = Asked()
    await asked.ask(turn, question())
    await stage.handled(thread_id)
    assert (len(peer.log), len(stage.lines(thread_id))) == (before, lines)
    assert len(asked.answers) == 1, "a question of a turn that is over is answered at once"


async def test_the_late_end_of_an_interrupted_turn_takes_nothing_from_the_next(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    first, _ = await stage.begin(peer, thread_id)
    # The three are handled in one go; the end of the first turn's task arrives behind them.
    stage.interrupt(peer, thread_id, first)
    second = stage.turn(peer, thread_id, "second")
    await second.answer()
    runner = stage.runners[0]
    turn = await runner.turn(2)
    steered = stage.steer(peer, thread_id, turn.job.turn_id, "keep me")

    stage.actor(thread_id).mailbox.put_always(TurnEnded(first, None))
    await steered.answer()
    await stage.handled(thread_id)
    assert [entry.input[0].text for entry in turn.control.unconsumed] == ["keep me"]  # type: ignore[union-attr]
