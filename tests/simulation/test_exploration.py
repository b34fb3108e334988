"""Random schedules hold the rules of the reference model; a broken daemon is found, its schedule made short.

``SPOOLD_TEST_EVERYTHING`` in the environment runs some thousand; ``python -m tests.simulation explore`` goes
on as long as wanted.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import attach, queue_rows
from tests.simulation.explorer import (
    Coverage,
    Schedule,
    failure_of,
    make_schedule,
    run_schedule,
    shorten,
)
from tests.simulation.reference_model import Broken, Facts, Queued, Register, Stream
from tests.simulation.steps import ACTS

EVERYTHING = "SPOOLD_TEST_EVERYTHING"
SCHEDULES = 3000 if os.environ.get(EVERYTHING) else 160
BATCHES = 8

REGRESSIONS: dict[str, tuple[int, Schedule]] = {
    "a queued row broke its thread when it was to run": (
        30020,
        (("connect", 0, 0, 0), ("start_thread", 0, 1, 0), ("settle", 591, 480, 67), ("add", 21, 794, 693)),
    ),
    "a turn that an archive had ended was recorded and not told when its file could not be moved": (
        383,
        (
            ("connect", 0, 0, 0),
            ("start_thread", 0, 0, 0),
            ("settle", 53, 388, 654),
            ("turn", 39, 992, 923),
            ("fault", 159, 321, 407),
            ("put_away", 765, 116, 580),
            ("settle", 151, 598, 250),
        ),
    ),
    "a crash while a daemon that ends made its last writes left them waiting for ever": (
        101246,
        make_schedule(101246),
    ),
    "a queued row was lost in a power cut with a thread whose file had begun with its name": (
        1729,
        (
            ("connect", 0, 0, 0),
            ("start_thread", 0, 1, 0),
            ("connect", 976, 217, 327),
            ("name", 310, 70, 773),
            ("switches", 809, 380, 949),
            ("crash_at", 979, 675, 692),
            ("add", 330, 659, 688),
            ("settle", 735, 740, 778),
        ),
    ),
}
"""Schedules that a daemon of ours has failed, by what was wrong with it."""


@pytest.mark.parametrize("batch", range(BATCHES))
def test_schedules_of_many_seeds_hold_the_rules(batch: int) -> None:
    for seed in range(batch, SCHEDULES, BATCHES):
        run_schedule(seed, make_schedule(seed))


def test_exploration_reaches_every_kind_of_step_and_state() -> None:
    coverage = Coverage()
    for seed in range(5000, 5040):
        run_schedule(seed, make_schedule(seed), coverage)
    assert {kind for _, kind in coverage.moves} == ACTS.keys()
    reached = {part for state in coverage.states for part in state.split("/")}
    assert reached == {
        *("down", "draining", "no thread"),
        *("idle", "turn", "asking", "queue", "empty", "watched", "alone"),
    }
    assert str(coverage.schedules) in coverage.report()


@pytest.mark.parametrize("what", REGRESSIONS)
def test_what_was_found_once_stays_mended(what: str) -> None:
    run_schedule(*REGRESSIONS[what])


steps = st.tuples(st.sampled_from(sorted(ACTS)), *[st.integers(0, 15)] * 3)
schedules = st.sets(st.sampled_from(sorted(ACTS))).flatmap(
    lambda left_out: (
        st.lists(steps.filter(lambda step: step[0] not in left_out), max_size=25)
        if len(left_out) < len(ACTS)
        else st.just([])
    )
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1000), schedule=schedules)
def test_schedules_that_hypothesis_makes_hold_the_rules(seed: int, schedule: list[Any]) -> None:
    run_schedule(seed, (("connect", 0, 0, 0), ("start_thread", 0, 0, 0), ("settle", 0, 0, 0), *schedule))


# -- broken daemons -----------------------------------------------------------------------------------------


def first_failure(most: int = 300) -> tuple[int, Schedule]:
    """The first seed whose schedule fails, and the schedule made short."""
    for seed in range(most):
        if failure_of(seed, make_schedule(seed)) is not None:
            return seed, shorten(seed, make_schedule(seed), tries=120)
    pytest.fail(f"{most} schedules did not notice")


def test_a_daemon_that_forgets_to_ask_again_is_found_by_exploration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "replay_pending", lambda decision, state, peer: None)
    seed, schedule = first_failure()
    with pytest.raises(Broken, match=r"requests|turns that do not end") as failed:
        run_schedule(seed, schedule)
    assert len(schedule) < 20
    assert f"python -m tests.simulation replay {seed}" in "\n".join(failed.value.__notes__)


def test_a_daemon_that_never_drains_its_queue_is_found_by_exploration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_rows, "may_drain", lambda state: False)
    seed, schedule = first_failure()
    with pytest.raises(Broken, match="rule 5"):
        run_schedule(seed, schedule)


# -- the model itself ---------------------------------------------------------------------------------------


def test_a_register_admits_what_overlapping_writes_may_have_left() -> None:
    register = Register(None)
    assert register.possible() == [None]
    first, second = register.write("first", 1), register.write("second", 2)
    assert register.possible() == [None, "first", "second"]
    first.done = 3
    assert register.possible() == ["first", "second"]
    second.done = 4
    assert register.possible() == ["first", "second"]
    third = register.write("third", 5)
    third.done = 6
    assert register.possible() == ["third"]
    register.refused(register.write("refused", 7))
    assert register.possible() == ["third"]


def test_a_stream_with_a_gap_is_broken() -> None:
    stream = Stream()
    stream.attach({"thread": {"turns": [], "status": {"type": "idle"}}, "seq": 4}, here=False)
    stream.message({"method": "thread/name/updated", "params": {}, "seq": 5})
    with pytest.raises(Broken, match="7 follows 5"):
        stream.message({"method": "thread/name/updated", "params": {}, "seq": 7})


def test_a_lost_turn_and_a_message_in_two_places_are_broken() -> None:
    facts = Facts()
    facts.told(
        {"method": "turn/completed", "params": {"turn": {"id": "t", "status": "completed", "error": None}}}
    )
    with pytest.raises(Broken, match="turn t"):
        facts.check_history([], None)
    said = {"type": "userMessage", "clientId": "m"}
    facts.queued["m"] = Queued(added=True)
    with pytest.raises(Broken, match="2 places"):
        facts.check_places([{"clientUserMessageId": "m"}], [{"id": "t", "items": [said]}])
    with pytest.raises(Broken, match="0 places"):
        facts.check_places([], [])
