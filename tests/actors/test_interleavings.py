"""Two clients, a third that comes, one question: every order of what they and the turn can do.

Enumerated, not sampled: the order of the moves is the only thing that differs between two runs. What a client
cannot do (answer over a connection that has ended) is left out. Each order is run twice: as fast as it goes,
so that all moves wait in the mailbox together, and one by one, with a look at every prompt after each move.
"""

from __future__ import annotations

import os
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from agent.events import ApprovalFailed
from spoold.testing.client_state import ClientState
from tests.actors.stage import Asked, Stage, opened, question
from tests.support.in_memory import PuppetTurn, RecordingReply, replay_hint

Json = dict[str, Any]

CLIENTS = ("A answers", "B answers", "A disconnects", "B disconnects", "C resumes", "A unsubscribes")
INTERRUPT, END = "interrupt", "the turn ends"
BEFORE = (("A answers", "A disconnects"), ("A unsubscribes", "A disconnects"), ("B answers", "B disconnects"))
DECISION = {"A": "accept", "B": "decline"}
EVERYTHING = "SPOOLD_TEST_EVERYTHING"
"""Environment variable: also the orders in which the turn is both interrupted and ends by itself."""


def orders(*ends: str) -> list[tuple[str, ...]]:
    """Every order of the clients' moves and these, in which nobody acts over a connection that has ended."""
    return [
        order
        for order in permutations((*CLIENTS, *ends))
        if all(order.index(act) < order.index(end) for act, end in BEFORE)
    ]


def _asks(message: Json) -> bool:
    return "method" in message and "id" in message


class Scene:
    """One question before two clients, and the moves."""

    def __init__(self, stage: Stage, nursery: trio.Nursery, thread_id: str, number: int) -> None:
        self.stage, self.nursery, self.thread_id = stage, nursery, thread_id
        self.peers = {name: stage.peer() for name in "ABC"}
        self.since: dict[str, int] = {}
        self.attached: set[str] = set()
        self.connected = {"A", "B", "C"}
        self.asked = Asked()
        self.number = number
        self.turn: PuppetTurn
        self.turn_id = ""
        self.request_id = -1
        self.resumed: RecordingReply | None = None
        self.interrupted: RecordingReply | None = None

    async def open(self) -> None:
        for name in "AB":
            await self.attach(name, excludeTurns=True).answer()
        self.turn_id, self.turn = await self.stage.begin(self.peers["A"], self.thread_id)
        self.nursery.start_soon(self.asked.ask, self.turn, question(f"call-{self.number}"))
        await self.peers["B"].until(lambda log: any("method" in entry and "id" in entry for entry in log))
        self.request_id = next(
            entry["id"] for entry in self.peers["B"].log if "method" in entry and "id" in entry
        )

    def attach(self, name: str, **params: Any) -> RecordingReply:
        self.since[name] = len(self.peers[name].log)
        self.attached.add(name)
        return self.stage.resume(self.peers[name], self.thread_id, **params)

    def move(self, what: str) -> None:
        """Do one thing as the transport does it: nothing is waited for."""
        name = what[0]
        match what.partition(" ")[2]:
            case "answers":
                self.stage.answer(self.peers[name], self.request_id, {"decision": DECISION[name]})
            case "disconnects":
                self.stage.supervisor.peer_gone(self.peers[name])
                self.attached.discard(name)
            case "unsubscribes":
                self.stage.unsubscribe(self.peers[name], self.thread_id)
                self.attached.discard(name)
            case "resumes":
                self.resumed = self.attach(name)
            case "turn ends":
                self.turn.end()
            case _:
                self.interrupted = self.stage.interrupt(self.peers["A"], self.thread_id, self.turn_id)

    def state(self, name: str) -> ClientState:
        return ClientState().all(self.peers[name].log[self.since[name] :])

    async def settled(self) -> None:
        """Until the turn has heard of what was done, and the thread of what the turn did then."""
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            await self.stage.handled(self.thread_id)

    def check_prompts(self) -> None:
        """Every attached client shows exactly the prompts that are open."""
        state = self.stage.actor(self.thread_id).state
        assert state is not None
        for name in self.attached:
            seen = self.state(name)
            assert list(seen.requests) == [entry.request_id for entry in state.pending], name
            assert seen.status == state.status.to_wire(), name

    def check_end(self, deciding: str) -> None:
        """``deciding``: the first move of those that settle the question."""
        state = self.stage.actor(self.thread_id).state
        assert state is not None
        assert (state.turn, state.pending) == (None, ())
        self.check_prompts()
        assert len(self.asked.answers) <= 1
        for answer in self.asked.answers:
            # A task that is cancelled may not live to see what it was told.
            if deciding in (INTERRUPT, END):
                assert isinstance(answer, ApprovalFailed)
            else:
                assert answer == DECISION[deciding[0]]
        for name, peer in self.peers.items():
            ends = [note for note in peer.params("turn/completed") if note["turn"]["id"] == self.turn_id]
            assert len(ends) <= 1, name
            resolved = peer.params("serverRequest/resolved")
            assert resolved in ([], [{"threadId": self.thread_id, "requestId": self.request_id}]), name
            if name in self.attached:
                assert self.state(name).turns[self.turn_id]["status"] in ("completed", "interrupted"), name

    def close(self) -> None:
        for peer in self.peers.values():
            self.stage.supervisor.peer_gone(peer)


THREAD_TURNS = 20
"""A snapshot holds all turns of its thread: a new thread now and then keeps them short."""


async def play(tmp_path: Path, todo: list[tuple[str, ...]], *, one_by_one: bool) -> None:
    async with opened(tmp_path, limit=900) as stage, trio.open_nursery() as nursery:
        owner = stage.peer()
        thread_id = ""
        for number, order in enumerate(todo):
            if number % THREAD_TURNS == 0:
                thread_id = await stage.start(owner)
                await stage.unsubscribe(owner, thread_id).answer()
                owner.log.clear()
            with replay_hint(order=order, one_by_one=one_by_one):
                scene = Scene(stage, nursery, thread_id, number)
                await scene.open()
                for move in order:
                    scene.move(move)
                    if one_by_one:
                        await scene.settled()
                        scene.check_prompts()
                await scene.settled()
                # The end of the turn's task is a message like any other, and comes after what waits already.
                moves = order if one_by_one else [*(move for move in order if move != END), END]
                scene.check_end(next(move for move in moves if "answers" in move or move in (INTERRUPT, END)))
                scene.close()
        await stage.handled(thread_id)
        ended = stage.terminal_lines(thread_id)
        assert len(ended) == len(set(ended)) == (len(todo) - 1) % THREAD_TURNS + 1


@pytest.mark.parametrize("one_by_one", [False, True], ids=["together", "one by one"])
@pytest.mark.parametrize("end", [INTERRUPT, END])
async def test_every_order_of_what_two_clients_and_a_turn_do_ends_in_one_decision_and_one_end(
    tmp_path: Path, end: str, one_by_one: bool
) -> None:
    todo = orders(end)
    assert len(todo) == 840
    await play(tmp_path, todo, one_by_one=one_by_one)


@pytest.mark.slow
@pytest.mark.skipif(EVERYTHING not in os.environ, reason=f"takes minutes; set {EVERYTHING} to run it")
@pytest.mark.parametrize("one_by_one", [False, True], ids=["together", "one by one"])
async def test_every_order_in_which_the_turn_is_also_interrupted_while_it_ends(
    tmp_path: Path, one_by_one: bool
) -> None:
    todo = orders(INTERRUPT, END)
    assert len(todo) == 6720
    await play(tmp_path, todo, one_by_one=one_by_one)


async def test_an_answer_of_a_client_that_was_never_asked_changes_nothing_until_it_attaches(
    stage: Stage, nursery: trio.Nursery
) -> None:
    owner, stranger = stage.peer(), stage.peer()
    thread_id = await stage.start(owner)
    _, turn = await stage.begin(owner, thread_id)
    asked = Asked()
    nursery.start_soon(asked.ask, turn, question())
    await owner.until(lambda log: any(map(_asks, log)))
    request_id = next(filter(_asks, owner.log))["id"]
    for result in ({"decision": "accept"}, {"decision": "nonsense"}, None):
        stage.answer(stranger, request_id, result)
    stage.answer(stranger, request_id, None, failed=True)
    await stage.handled(thread_id)
    assert asked.answers == []
    assert not owner.params("serverRequest/resolved")
    await stage.resume(stranger, thread_id).answer()
    stage.answer(stranger, request_id, {"decision": "accept"})
    await asked.done.wait()
    assert asked.answers == ["accept"]
