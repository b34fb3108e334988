"""The enumeration itself: it runs each schedule once, leaves none out, and finds what few of them show."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import pytest
import trio
import trio.testing

import tests.simulation.test_core_races as races
from actors import queue_drain
from actors.effects import Decision
from actors.messages import Drain, Message, Resume
from actors.peer import Peer
from actors.state import ThreadState
from actors.thread_actor import ThreadActor
from spoold.testing import World
from spoold.testing.races import Race, Scenario, explore, replay
from spoold.testing.schedule import run_seeded
from spoold.testing.systematic import Diverged, Frontier, Schedule, Steady, install
from tests.simulation.race_stage import SETTINGS, Loads

Step = Callable[[], None]


def steps_of(program: Sequence[Sequence[Step]], schedule: Schedule) -> None:
    """Run one task per list of steps, switching between all steps."""

    async def task(steps: Sequence[Step]) -> None:
        for number, step in enumerate(steps):
            if number:
                await trio.lowlevel.checkpoint()
            step()

    async def work() -> None:
        queue = install()
        async with trio.open_nursery() as nursery:
            with queue.deciding(schedule):
                for steps in program:
                    nursery.start_soon(task, steps)
                await trio.testing.wait_all_tasks_blocked()
        schedule.check()

    run_seeded(work, 0, workers=Steady())


def every_run(program: Callable[[list[str]], Sequence[Sequence[Step]]], bound: int) -> list[str]:
    """What each schedule writes."""
    frontier = Frontier(bound)
    written = []
    while (schedule := frontier.next()) is not None:
        paper: list[str] = []
        steps_of(program(paper), schedule)
        frontier.ran(schedule)
        written.append("".join(paper))
    assert frontier.complete
    assert sum(frontier.runs) == len(written)
    return written


def writers(*words: str) -> Callable[[list[str]], Sequence[Sequence[Step]]]:
    """Tasks that each write a word, letter by letter."""
    return lambda paper: [[lambda letter=letter: paper.append(letter) for letter in word] for word in words]


def switches(order: str) -> int:
    return sum(one != other for one, other in pairwise(order))


@pytest.mark.parametrize("bound", range(6))
def test_two_tasks_run_once_in_every_order_with_that_many_preemptions(bound: int) -> None:
    orders = {"".join(order) for order in permutations("aaabbb")}
    # A switch where a task has ended is none.
    wanted = sorted(order for order in orders if switches(order) <= bound + 1)
    assert sorted(every_run(writers("aaa", "bbb"), bound)) == wanted


def test_a_high_bound_gives_every_order_of_three_tasks() -> None:
    orders = {"".join(order) for order in permutations("aabbcc")}
    assert sorted(every_run(writers("aa", "bb", "cc"), 10)) == sorted(orders)


def test_what_is_cheaper_comes_first() -> None:
    counted = [switches(order) for order in every_run(writers("aaa", "bbb"), 4)]
    assert counted == sorted(counted)


def test_a_lost_update_is_found_with_one_preemption_and_not_without() -> None:
    def two_increments(paper: list[str]) -> Sequence[Sequence[Step]]:
        seen = [0, 0]
        value = 0

        def read(who: int) -> None:
            seen[who] = value

        def write(who: int) -> None:
            nonlocal value
            value = seen[who] + 1
            paper[:] = [str(value)]

        return [[lambda who=who: read(who), lambda who=who: write(who)] for who in range(2)]

    assert set(every_run(two_increments, 0)) == {"2"}
    assert set(every_run(two_increments, 1)) == {"1", "2"}


def test_a_program_that_does_not_repeat_is_found_out() -> None:
    count = 0

    def moody(paper: list[str]) -> Sequence[Sequence[Step]]:
        nonlocal count
        count += 1
        return writers("aaa", "bbb")(paper) if count < 3 else writers("aaa")(paper)

    with pytest.raises(Diverged, match=r"schedule=\[1\] had 0 steps only"):
        every_run(moody, 1)


def test_an_enumeration_that_is_cut_off_says_so() -> None:
    async def race(world: World, race: Race) -> None:
        async with trio.open_nursery() as nursery:
            with race:
                nursery.start_soon(trio.lowlevel.checkpoint)
                nursery.start_soon(trio.lowlevel.checkpoint)
                await trio.testing.wait_all_tasks_blocked()

    cut = explore(race, 2, most=3)
    whole = explore(race, 2)
    assert (cut.complete, sum(cut.runs)) == (False, 3)
    assert (whole.complete, sum(whole.runs) > 3) == (True, True)
    assert str(cut).endswith("cut off")


# -- it finds bugs: the actor is made worse, and the races of this folder notice ---------------------------


@dataclass(frozen=True)
class LateSubscription:
    """The second half of a resume."""

    peer: Peer


Decide = Callable[[ThreadActor, Message], Awaitable[Decision]]


def subscribes_later(decide: Decide) -> Decide:
    """Resume as snapshot, then subscription: two steps instead of one."""

    async def mutated(actor: ThreadActor, message: Any) -> Decision:
        state = actor.state
        assert state is not None
        if isinstance(message, LateSubscription):
            return Decision(state.subscribed(message.peer))
        decision = await decide(actor, message)
        if isinstance(message, Resume) and message.reply.peer.id not in state.subscribers:
            decision.state = replace(decision.state, subscribers=state.subscribers)
            later: Any = LateSubscription(message.reply.peer)
            actor.mailbox.put_always(later)
        return decision

    return mutated


def drains_what_it_saw(decide: Decide) -> Decide:
    """A drain that takes the row which was the head when the drain was decided upon."""
    seen: dict[ThreadActor, ThreadState] = {}

    async def mutated(actor: ThreadActor, message: Message) -> Decision:
        state = actor.state
        assert state is not None
        if isinstance(message, Drain) and state.turn is None:
            actor._drain_sent = False
            row = seen[actor].queue.rows.first
            assert row is not None
            return queue_drain.dispatch(state, row, actor._step, await actor._runtime.model_context())
        decision = await decide(actor, message)
        if decision.state.queue.rows.first and not actor._drain_sent:
            seen[actor] = decision.state
        return decision

    return mutated


@pytest.mark.parametrize(
    ("mutation", "race"),
    [
        (subscribes_later, races.resume_and_turn),
        (drains_what_it_saw, races.delete_and_drain),
    ],
)
def test_a_worse_actor_is_found_out_and_the_schedule_that_shows_it_shows_it_again(
    mutation: Callable[[Decide], Decide], race: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario: Scenario = race(Loads(monkeypatch)) if race is races.resume_and_turn else race
    with monkeypatch.context() as worse:
        worse.setattr(ThreadActor, "_decide", mutation(ThreadActor._decide))
        with pytest.raises(AssertionError) as found:
            explore(scenario, 2, settings=SETTINGS)
        [named] = re.findall(r"replay with schedule=\[(.*)\]", "\n".join(found.value.__notes__))
        schedule = [int(number) for number in named.split(",") if number]
        print(f"{mutation.__name__}: {found.value.__notes__[1]}")
        with pytest.raises(AssertionError) as again:
            replay(scenario, schedule, settings=SETTINGS)
    assert str(again.value).splitlines()[0] == str(found.value).splitlines()[0]
    replay(scenario, schedule, settings=SETTINGS)
