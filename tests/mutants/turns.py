"""Breaks of the turn slot: how turns start, report and end."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TURNS, EVENTS, ACTOR, RUNTIME, TASK = (
    "actors/turns.py",
    "actors/turn_events.py",
    "actors/thread_actor.py",
    "actors/thread_runtime.py",
    "actors/turn_task.py",
)
ORDER = "rule 3: one order of reply and notifications"
ONE_TURN = "rule 5: at most one turn is active"
ONE_END = "every started turn gets exactly one end"
DURABLE_END = "§4: turn/completed comes after the fsync"

MUTANTS = [
    Mutant(
        "turn/started leaves before the answer to turn/start",
        ORDER,
        TURNS,
        """\
    if announce is not None:
        announce(decision, turn)
    decision.show_status()
    decision.notify("turn/started", _turn_note(after, turn, "inProgress"))
""",
        """\
    decision.show_status()
    decision.notify("turn/started", _turn_note(after, turn, "inProgress"))
    if announce is not None:
        announce(decision, turn)
""",
        ["tests/actors/test_turn_slot.py::test_a_turn_starts_from_idle_and_from_failed"],
    ),
    Mutant(
        "an interrupt is answered after the turn's end",
        ORDER,
        TURNS,
        """\
    decision.answer(message.reply, Empty())
    _close(decision, "interrupt", step, unseen=unseen)
""",
        """\
    _close(decision, "interrupt", step, unseen=unseen)
    decision.answer(message.reply, Empty())
""",
        ["tests/actors/test_turn_slot.py::test_an_interrupt_is_answered_before_the_turn_ends"],
    ),
    Mutant(
        "turn/completed comes before the status that says idle",
        ORDER,
        TURNS,
        """\
    decision.show_status()
    if error is not None:
""",
        """\
    decision.notify("turn/completed", _turn_note(after, turn, status, error, now))
    decision.show_status()
    return
    if error is not None:
""",
        [
            "tests/actors/test_turn_slot.py::"
            "test_a_turn_that_ends_by_itself_gets_its_one_line_then_its_status_then_its_end"
        ],
    ),
    Mutant(
        "a turn/start while a turn runs starts another",
        ONE_TURN,
        TURNS,
        "    if state.turn is not None:\n        decision = Decision(state)\n        decision.answer(",
        "    if False:\n        decision = Decision(state)\n        decision.answer(",
        ["tests/actors/test_turn_slot.py::test_a_turn_start_while_one_runs_gives_it_the_message"],
    ),
    Mutant(
        "an interrupt of another turn interrupts the one that runs",
        ONE_TURN,
        TURNS,
        'if state.turn is None or wanted not in ("", state.turn.id):',
        "if state.turn is None:",
        ["tests/actors/test_turn_slot.py::test_an_interrupt_of_another_turn_is_refused_and_changes_nothing"],
    ),
    Mutant(
        "what an ended turn still reports is shown as the next one's",
        ONE_END,
        EVENTS,
        "    if turn is None or turn.id != message.turn_id:\n",
        "    if turn is None:\n",
        ["tests/actors/test_one_end.py::test_what_an_ended_turn_still_reports_reaches_nobody"],
    ),
    Mutant(
        "the text that an ended turn still streams is shown as the next one's",
        ONE_END,
        ACTOR,
        "            if turn is not None and turn.id == message.turn_id:\n",
        "            if turn is not None:\n",
        ["tests/actors/test_one_end.py::test_what_an_ended_turn_still_reports_reaches_nobody"],
    ),
    Mutant(
        "the late end of an interrupted turn ends the next one",
        ONE_END,
        TURNS,
        "    if turn is None or turn.id != message.turn_id or outcome is None:\n",
        "    if turn is None or outcome is None:\n",
        ["tests/actors/test_turn_slot.py::test_the_end_of_a_turn_that_is_over_changes_nothing"],
    ),
    Mutant(
        "the late end of an interrupted turn takes what was said to the next one",
        ONE_END,
        RUNTIME,
        "task.take_unconsumed() if task is not None and task.turn_id == turn_id else []",
        "task.take_unconsumed() if task is not None else []",
        [
            "tests/actors/test_one_end.py::"
            "test_the_late_end_of_an_interrupted_turn_takes_nothing_from_the_next"
        ],
    ),
    Mutant(
        "a turn that breaks posts no end",
        ONE_END,
        TASK,
        "            outcome = TurnOutcome(\n"
        "                error=TurnError("
        'message="the turn failed inside the server", codex_error_info="other")\n'
        "            )\n",
        "",
        ["tests/actors/test_failures.py::test_an_exception_in_a_turn_fails_that_turn_and_nothing_else"],
    ),
    Mutant(
        "an interrupted turn's task runs on",
        "rule 2: interrupting a turn is cancelling its scope",
        TASK,
        "        self._scope.cancel()\n",
        "        pass\n",
        [
            "tests/actors/test_failures.py::"
            "test_a_turn_that_cannot_be_recorded_ends_as_failed_and_shows_nothing_of_what_is_lost"
        ],
    ),
    Mutant(
        "what was said to a turn that ends without taking it is lost",
        "an accepted message is not lost",
        TURNS,
        "    for message in unseen:\n        _into_transcript(decision, message, step)\n",
        "",
        [
            "tests/actors/test_steering.py::"
            "test_what_was_said_to_a_turn_that_ends_without_taking_it_is_in_the_transcript"
        ],
    ),
    Mutant(
        "a message that came as the turn ended does not start it again",
        "an accepted message is not lost",
        TURNS,
        "    elif unconsumed:\n",
        "    elif False:\n",
        [
            "tests/actors/test_turn_slot.py::"
            "test_a_message_that_the_turn_did_not_take_starts_it_again_in_the_same_turn"
        ],
    ),
    Mutant(
        "the end of a turn is not flushed",
        DURABLE_END,
        TURNS,
        "    decision.fsync = True\n",
        "",
        [
            "tests/simulation/test_world.py::"
            "test_what_was_flushed_survives_the_loss_of_power_and_what_was_not_may_go"
        ],
    ),
    Mutant(
        "an interrupted turn has no terminal line",
        ONE_END,
        "actors/lines.py",
        '    if status == "interrupted":\n        line = make.turn_aborted(',
        '    if status == "interrupted":\n        return\n        line = make.turn_aborted(',
        ["tests/actors/test_turn_slot.py::test_shutting_down_interrupts_the_turn"],
    ),
    Mutant(
        "the model context grows by what could not be recorded",
        "§2: a failed commit has published nothing",
        ACTOR,
        "        if decision.durable:\n",
        "        from actors.effects import GrowContext\n"
        "        for effect in decision.effects:\n            if isinstance(effect, GrowContext):\n"
        '                self._runtime.carry_out(effect, "")\n'
        "        decision.effects = "
        "[each for each in decision.effects if not isinstance(each, GrowContext)]\n"
        "        if decision.durable:\n",
        ["tests/actors/test_failures.py::test_context_that_cannot_be_recorded_does_not_grow"],
    ),
]
