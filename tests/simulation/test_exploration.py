"""Random schedules hold the rules of the reference model; a broken daemon is found, its schedule made short.

``SPOOLD_TEST_EVERYTHING`` in the environment runs more; ``spoold-sim explore`` goes on as long as wanted.
"""

from __future__ import annotations

import math
import os

import pytest

from actors import attach, queue_rows
from persistence.fault_points import NAMES
from spoold.testing.exploration.connection_model import Stream
from spoold.testing.exploration.explorer import Findings, Plan, explore_on
from spoold.testing.exploration.rules import Broken
from spoold.testing.exploration.schedules import (
    Schedule,
    failure_of,
    make_schedule,
    read,
    run_schedule,
    shorten,
)
from spoold.testing.exploration.steps import ACTS
from spoold.testing.exploration.thread_model import Facts, Register, Said
from tests.simulation.regressions import REGRESSIONS
from transport.methods import METHODS

EVERYTHING = bool(os.environ.get("SPOOLD_TEST_EVERYTHING"))
SCHEDULES = 10_000 if EVERYTHING else 2000


@pytest.fixture(scope="module")
def findings() -> Findings:
    """The same seeds in every run: what fails for one fails for all."""
    return explore_on(os.cpu_count() or 1, Plan(schedules=SCHEDULES, seconds=math.inf))


def test_schedules_of_many_seeds_hold_the_rules(findings: Findings) -> None:
    assert findings.coverage.schedules == SCHEDULES
    assert not findings.failures, "\n".join(map(str, findings.failures))


def test_exploration_reaches_nearly_every_pair_of_steps_and_every_state(findings: Findings) -> None:
    coverage = findings.coverage
    assert len(coverage.pairs) > 0.99 * len(ACTS) ** 2
    assert {kind for _, kind in coverage.moves} == ACTS.keys()
    reached = {part for state in coverage.states for part in state.split("/")}
    assert reached == {
        *("down", "draining", "no thread"),
        *("idle", "turn", "asking", "queue", "empty", "watched", "alone"),
    }
    assert f"{SCHEDULES} schedules" in coverage.report()


def test_exploration_reaches_what_happens_rarely(findings: Findings) -> None:
    rare = {
        "replayed",
        "unloaded",
        "closed 1001",
        "closed 1006",
        "closed 4008",
        "error -32001",
        "error -32603",
    }
    # Claims are settled by few starts: ``test_world`` lets the daemon die there.
    often = [name for name in NAMES if "claim" not in name]
    assert rare | {f"death {name}" for name in often} <= findings.coverage.happened.keys()


def test_exploration_uses_every_method_that_concerns_a_thread(findings: Findings) -> None:
    methods = {row.name for row in METHODS.values() if row.scope == "thread" and row.offered}
    assert methods - findings.coverage.methods.keys() == set()


@pytest.mark.parametrize("what", REGRESSIONS)
def test_what_was_found_once_stays_mended(what: str) -> None:
    seed, schedule = REGRESSIONS[what]
    run_schedule(seed, read(schedule))


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
    assert f"spoold-sim replay {seed} --schedule" in "\n".join(failed.value.__notes__)


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
    idle = {"turns": [], "status": {"type": "idle"}}
    stream.attach({"thread": idle, "seq": 4, "epoch": "e"}, here=False)
    stream.message({"method": "thread/name/updated", "params": {}, "seq": 5, "epoch": "e"})
    with pytest.raises(Broken, match="7 follows 5"):
        stream.message({"method": "thread/name/updated", "params": {}, "seq": 7, "epoch": "e"})
    with pytest.raises(Broken, match="another life"):
        stream.message({"method": "thread/name/updated", "params": {}, "seq": 6, "epoch": "f"})


def test_a_lost_turn_and_a_message_in_two_places_are_broken() -> None:
    facts = Facts()
    facts.told(
        {"method": "turn/completed", "params": {"turn": {"id": "t", "status": "completed", "error": None}}}
    )
    with pytest.raises(Broken, match="turn t"):
        facts.check_history([], None, faulty=False)
    said = {"type": "userMessage", "clientId": "m"}
    facts.said["m"] = Said(added=True)
    with pytest.raises(Broken, match="2 places"):
        facts.check_places([{"clientUserMessageId": "m"}], [{"id": "t", "items": [said]}])
    with pytest.raises(Broken, match="0 places"):
        facts.check_places([], [])
