"""The turn slot as pure functions: every pair of a slot and an event."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from actors import turns
from actors.effects import Answer, CancelTurn, Decision, Notify, Refuse, ShowStatus, StartTurn, SteerTurn
from actors.messages import TurnEnded, TurnInterrupt, TurnStart, TurnSteer
from actors.state import RunningTurn, Settings, ThreadState
from actors.step import StepContext
from agent.events import Submission, TurnOutcome, TurnSettings
from persistence.store import ThreadRecord
from protocol.settings import ReadOnly
from protocol.threads import TurnError
from protocol.turn_methods import TurnInterruptParams, TurnStartParams, TurnSteerParams
from protocol.user_input import TextInput
from tests.support.in_memory import RecordingPeer, SeededRuntime

THREAD = "0190aaaa-0000-7000-8000-000000000001"
TURN = "0190aaaa-0000-7000-8000-00000000000a"
WORDS = [TextInput(text="hello")]


def record() -> ThreadRecord:
    return ThreadRecord(
        id=THREAD, path=Path("/home/r.jsonl"), created_at_ms=1, updated_at_ms=1, recency_at_ms=1, preview="",
        name=None, model_provider="mock", model="m", reasoning_effort=None, cwd="/", source="vscode",
        thread_source=None, originator="t", cli_version="1", archived=False, history_mode="paginated",
        git=None, forked_from_id=None, parent_thread_id=None,
    )  # fmt: skip


def state_in(slot: str) -> ThreadState:
    turn = TurnSettings(model="m", cwd="/", approval_policy="never", sandbox_policy=ReadOnly())
    settings = Settings(model="m", model_provider="mock", cwd="/", turn=turn)
    state = ThreadState(record=record(), settings=settings, materialised=True, failed=slot == "failed")
    return replace(state, turn=RunningTurn(TURN, 1)) if slot == "running" else state


class StillRuntime(SeededRuntime):
    """Here no time passes."""

    def now_ms(self) -> int:
        return 1000


def step(*, draining: bool = False) -> StepContext:
    return StepContext(StillRuntime(), iter(range(100)).__next__, lambda: draining)


def effects(decision: Decision, kind: type[Any]) -> list[Any]:
    return [effect for effect in decision.effects if isinstance(effect, kind)]


def notes(decision: Decision) -> list[str]:
    """What is published, in order."""
    return [
        effect.method if isinstance(effect, Notify) else type(effect).__name__ for effect in decision.effects
    ]


def start(state: ThreadState, *, draining: bool = False, **params: Any) -> Decision:
    wanted = TurnStartParams(thread_id=THREAD, input=list(WORDS), **params)
    message = TurnStart(RecordingPeer(1).reply(), wanted)
    return turns.start(state, message, step(draining=draining), [])


def steer(state: ThreadState, turn_id: str, *, draining: bool = False, empty: bool = False) -> Decision:
    params = TurnSteerParams(thread_id=THREAD, expected_turn_id=turn_id, input=[] if empty else list(WORDS))
    return turns.steer(state, TurnSteer(RecordingPeer(1).reply(), params), step(draining=draining))


def interrupt(state: ThreadState, turn_id: str) -> Decision:
    params = TurnInterruptParams(thread_id=THREAD, turn_id=turn_id)
    return turns.interrupt(state, TurnInterrupt(RecordingPeer(1).reply(), params), step())


def ended(
    state: ThreadState, outcome: TurnOutcome | None, left: list[Submission] | None = None, turn_id: str = TURN
) -> Decision:
    return turns.ended(state, TurnEnded(turn_id, outcome), step(), left or [], [])


def refusal(decision: Decision) -> str:
    (refused,) = effects(decision, Refuse)
    return str(refused.error.message)


FAILURE = TurnOutcome(error=TurnError(message="broken", codex_error_info="other"))


@pytest.mark.parametrize(("slot", "event"), list(product(get_args(turns.Slot), get_args(turns.SlotEvent))))
def test_the_table_holds_exactly_the_pairs_that_change_the_slot(slot: str, event: str) -> None:
    assert ((slot, event) in turns.SLOT) == ((event == "start") == (slot != "running"))  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("slot", ["idle", "failed"])
def test_a_turn_starts_from_idle_and_from_failed(slot: str) -> None:
    decision = start(state_in(slot))
    assert turns.slot_of(decision.state) == "running"
    assert notes(decision) == ["Answer", "ShowStatus", "turn/started", "StartTurn"]
    assert [line.payload["type"] for line in decision.lines[:1]] == ["task_started"]


def test_a_turn_start_while_one_runs_gives_it_the_message() -> None:
    state = state_in("running")
    decision = start(state)
    assert (decision.lines, notes(decision)) == ([], ["Answer", "SteerTurn"])
    assert state.turn is not None
    assert decision.state.turn is not None
    assert len(decision.state.turn.untaken) == len(state.turn.untaken) + 1
    assert replace(decision.state, turn=replace(decision.state.turn, untaken=())) == state
    assert effects(decision, Answer)[0].value.turn.id == TURN


@pytest.mark.parametrize("slot", ["idle", "failed", "running"])
def test_nothing_starts_and_nothing_is_steered_while_the_daemon_drains(slot: str) -> None:
    state = state_in(slot)
    for decision in (start(state, draining=True), steer(state, TURN, draining=True)):
        assert decision.state == state
        assert not effects(decision, StartTurn) + effects(decision, SteerTurn) + decision.lines
        assert effects(decision, Refuse)
    (refused,) = effects(start(state, draining=True), Refuse)
    assert refused.error.to_wire() == {
        "code": -32600,
        "message": "Server is draining; retry after reconnecting",
        "data": {"reason": "serverShuttingDown"},
    }


@pytest.mark.parametrize(
    ("outcome", "slot", "status", "line", "published"),
    [
        (TurnOutcome(), "idle", "completed", "task_complete", ["ShowStatus", "turn/completed"]),
        (
            FAILURE,
            "failed",
            "failed",
            "task_complete",
            ["CancelTurn", "ShowStatus", "error", "turn/completed"],
        ),
        (
            TurnOutcome(cancelled_by_user=True),
            "idle",
            "interrupted",
            "turn_aborted",
            ["CancelTurn", "ShowStatus", "turn/completed"],
        ),
    ],
)
def test_a_turn_that_ends_by_itself_gets_its_one_line_then_its_status_then_its_end(
    outcome: TurnOutcome, slot: str, status: str, line: str, published: list[str]
) -> None:
    decision = ended(state_in("running"), outcome)
    assert turns.slot_of(decision.state) == slot
    assert notes(decision) == published
    assert decision.effects[-1].params.turn.status == status  # type: ignore[union-attr]
    assert [entry.payload["type"] for entry in decision.lines] == [line]
    assert decision.fsync


def test_an_interrupt_is_answered_before_the_turn_ends() -> None:
    decision = interrupt(state_in("running"), TURN)
    assert notes(decision) == ["Answer", "CancelTurn", "ShowStatus", "turn/completed"]
    assert turns.slot_of(decision.state) == "idle"
    assert decision.state.interrupted_before


def test_the_end_of_a_turn_that_is_over_changes_nothing() -> None:
    for slot in ("idle", "failed"):
        assert ended(state_in(slot), TurnOutcome()) == Decision(state_in(slot))
    running = state_in("running")
    assert ended(running, TurnOutcome(), turn_id="another") == Decision(running)
    assert ended(running, None) == Decision(running), "a cancelled task says nothing"


def test_a_message_that_the_turn_did_not_take_starts_it_again_in_the_same_turn() -> None:
    left = [Submission("item", list(WORDS))]
    decision = ended(state_in("running"), TurnOutcome(), left)
    (again,) = effects(decision, StartTurn)
    assert (again.job.turn_id, again.job.submissions) == (TURN, left)
    assert turns.slot_of(decision.state) == "running"
    assert not decision.lines


@pytest.mark.parametrize(
    ("slot", "turn_id", "empty", "message"),
    [
        ("idle", TURN, False, "no active turn to steer"),
        ("failed", TURN, False, "no active turn to steer"),
        ("running", "x", False, f"expected active turn id `x` but found `{TURN}`"),
        ("running", "", False, "expectedTurnId must not be empty"),
        ("running", TURN, True, "input must not be empty"),
    ],
)
def test_a_steer_that_cannot_be_is_refused_and_changes_nothing(
    slot: str, turn_id: str, empty: bool, message: str
) -> None:
    decision = steer(state_in(slot), turn_id, empty=empty)
    assert (refusal(decision), decision.state, decision.lines) == (message, state_in(slot), [])


@pytest.mark.parametrize(
    ("slot", "turn_id", "message"),
    [
        ("idle", TURN, "no active turn to interrupt"),
        ("failed", TURN, "no active turn to interrupt"),
        ("running", "x", f"expected active turn id x but found {TURN}"),
    ],
)
def test_an_interrupt_of_another_turn_is_refused_and_changes_nothing(
    slot: str, turn_id: str, message: str
) -> None:
    decision = interrupt(state_in(slot), turn_id)
    assert (refusal(decision), decision.state, decision.lines) == (message, state_in(slot), [])


@pytest.mark.parametrize("slot", ["idle", "failed"])
def test_shutting_down_without_a_turn_writes_and_publishes_nothing(slot: str) -> None:
    assert turns.shut_down(state_in(slot), step()) == Decision(state_in(slot))


def test_shutting_down_interrupts_the_turn() -> None:
    decision = turns.shut_down(state_in("running"), step())
    assert [line.payload["type"] for line in decision.lines] == ["turn_aborted"]
    assert notes(decision) == ["CancelTurn", "ShowStatus", "turn/completed"]
    assert effects(decision, CancelTurn)[0].turn_id == TURN


def test_overrides_hold_for_the_following_turns_and_are_announced_before_the_answer() -> None:
    first = start(state_in("idle"), model="other", effort="high")
    assert notes(first)[:2] == ["thread/settings/updated", "Answer"]
    assert (first.state.settings.model, first.state.settings.turn.effort) == ("other", "high")
    over = replace(first.state, turn=None)
    second = start(over, model="other")
    assert "thread/settings/updated" not in notes(second), "nothing has changed"
    assert effects(second, StartTurn)[0].job.settings.effort == "high"


def test_a_turn_restarted_by_a_late_message_keeps_the_output_schema_of_its_start() -> None:
    schema = {"type": "object"}
    running = start(state_in("idle"), output_schema=schema).state
    assert running.turn is not None
    decision = ended(running, TurnOutcome(), [Submission("item", list(WORDS))], running.turn.id)
    assert effects(decision, StartTurn)[0].job.settings.output_schema == schema
    assert effects(start(replace(running, turn=None)), StartTurn)[0].job.settings.output_schema is None


def test_the_status_shown_is_that_after_the_step() -> None:
    shown = effects(ended(state_in("running"), FAILURE), ShowStatus)
    assert [each.state.status.type for each in shown] == ["systemError"]
