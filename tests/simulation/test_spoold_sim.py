"""``spoold-sim``: what it prints can be given back to it."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from actors import attach
from spoold.testing.exploration.__main__ import main
from spoold.testing.exploration.schedules import make_schedule, read, written


def sim(*arguments: str) -> tuple[int, str]:
    """Its exit code, and what it says."""
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output


def test_a_seed_is_replayed_and_its_trace_is_the_same_each_time() -> None:
    assert sim("replay", "7") == (0, "seed=7 holds\n")
    code, trace = sim("replay", "7", "--trace")
    assert code == 0
    assert "turn/start" in trace
    assert sim("replay", "7", "--trace") == (0, trace)


def test_a_schedule_is_replayed_as_it_is_written() -> None:
    code, trace = sim("replay", "7", "--trace", "--schedule", "connect, start_thread 0 1, settle")
    assert code == 0
    assert re.findall(r"step (.*)", trace)[:3] == [
        "('connect', 0, 0, 0)",
        "('start_thread', 0, 1, 0)",
        "('settle', 0, 0, 0)",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_read_as_the_same(seed: int) -> None:
    assert read(written(make_schedule(seed))) == make_schedule(seed)


@pytest.mark.parametrize("text", ["", "fly", "connect 1 2 3 4", "connect x", "connect; settle", "connect,,"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    code, said = sim("replay", "7", "--schedule", text)
    assert code == 2
    assert "Invalid value for --schedule" in said


def test_an_exploration_says_what_it_has_reached() -> None:
    code, said = sim("explore", "--schedules", "4", "--jobs", "1", "--seconds", "600")
    assert code == 0
    assert "4 schedules" in said
    assert "0 failures" in said
    assert "never one after the other" in said


def test_a_failure_is_shown_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "replay_pending", lambda decision, state, peer: None)
    code, said = sim("explore", "--enough", "1", "--jobs", "1", "--seconds", "600")
    assert code == 1
    command = re.search(r"replayed by: spoold-sim replay (\d+) --schedule \"(.*)\"", said)
    assert command is not None, said
    code, said = sim("replay", command[1], "--schedule", command[2])
    assert code == 1
    assert "Broken: " in said
    monkeypatch.undo()
    assert sim("replay", command[1], "--schedule", command[2]) == (0, f"seed={command[1]} holds\n")
