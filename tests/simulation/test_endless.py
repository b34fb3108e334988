"""A run that would never end is ended, and says who waits for what."""

from __future__ import annotations

import itertools
import re

import pytest
import trio

from spoold.testing import World, simulate
from spoold.testing.disk import SimulatedWriter
from spoold.testing.schedule import Spinning, Stuck, run_seeded


@pytest.fixture
def forgetful_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third commit is done, and nobody ever hears of it."""
    tell, told = SimulatedWriter._tell_first, 0

    def forget(writer: SimulatedWriter) -> None:
        nonlocal told
        told += 1
        if told == 3:
            writer._untold.pop(0)
        else:
            tell(writer)

    monkeypatch.setattr(SimulatedWriter, "_tell_first", forget)


@pytest.mark.usefixtures("forgetful_writer")
def test_where_nothing_can_happen_any_more_the_failure_says_who_waits_for_what() -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))

    with pytest.raises(Stuck, match="nothing can happen any more") as failed:
        simulate(scenario, 7)
    waiting = str(failed.value)
    assert re.search(r"main: .*test_endless.py:\d+ scenario > .*turn_ended > .*wait_for$", waiting, re.M)
    assert re.search(r"thread 01.*: .*thread_actor.py:\d+ _commit > .*store.py", waiting)
    notes = "\n".join(failed.value.__notes__)
    assert "seed=7" in notes
    assert 'alice > {"id":3,"method":"turn/start"' in notes


@pytest.mark.usefixtures("forgetful_writer")
def test_a_daemon_that_does_not_end_after_the_scenario_is_found_out() -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.start_turn(thread, "say one")

    with pytest.raises(Stuck, match=r"world.py:\d+ _live > .* stop"):
        simulate(scenario, 1)


def test_a_scenario_that_waits_while_time_goes_on_fails_when_the_time_is_up() -> None:
    async def never() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticks)
            await trio.Event().wait()

    async def ticks() -> None:
        for seconds in itertools.repeat(7):
            await trio.sleep(seconds)

    with pytest.raises(Stuck, match="after 1000 seconds") as failed:
        run_seeded(never, 1, seconds=1000)
    assert re.search(r"main: .* never\n.*ticks: .* ticks", str(failed.value))


def test_a_shield_does_not_keep_a_run_from_being_ended() -> None:
    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            try:
                await trio.Event().wait()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.Event().wait()

    with pytest.raises(Stuck, match="shielded"):
        run_seeded(shielded, 1)


def test_what_fails_on_its_way_out_does_not_hide_why_it_was_ended() -> None:
    async def fails_in_the_end() -> None:
        try:
            await trio.Event().wait()
        finally:
            raise ZeroDivisionError

    with pytest.raises(Stuck, match="fails_in_the_end") as failed:
        run_seeded(fails_in_the_end, 1)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("shield", [False, True])
def test_a_program_that_spins_while_time_stands_still_is_found_out(shield: bool) -> None:
    async def spin() -> None:
        with trio.CancelScope(shield=shield):
            while True:
                await trio.lowlevel.checkpoint()

    with pytest.raises(Spinning, match="more than 1000 steps"):
        run_seeded(spin, 1, most_steps=1000)
