"""Breaks of the turn itself: the order of its events, what cuts it, and what the model is told."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TURN, RETRY, CONTEXT = "agent/turn.py", "agent/model/retry.py", "agent/context.py"
POLICY = "agent/tools/command_policy.py"
CUTS = "agent.turn: what cuts what"
ONE_CONTEXT = "agent.turn: the turn's context and the actor's never differ"
ASKING = "the approval policy's table"
TURN_TESTS = "tests/agent/test_turn.py"

MUTANTS = [
    Mutant(
        "a user message is completed before it is started",
        "the order of a turn's events",
        TURN,
        """\
        await self.port.post(ItemStarted(event.item.model_copy(update={"completed_at_ms": None})))
        await self.port.post(event)
""",
        """\
        await self.port.post(event)
        await self.port.post(ItemStarted(event.item.model_copy(update={"completed_at_ms": None})))
""",
        [f"{TURN_TESTS}::test_a_plain_turn_posts_its_items_in_order_and_ends"],
    ),
    Mutant(
        "an item enters the turn's own context before it is posted",
        ONE_CONTEXT,
        TURN,
        """\
        await self.port.post(ItemCompleted(item, persist, (context,), context_first))
        self.job.context.append(context)
""",
        """\
        self.job.context.append(context)
        await self.port.post(ItemCompleted(item, persist, (context,), context_first))
""",
        [f"{TURN_TESTS}::test_an_item_that_a_steer_keeps_from_being_posted_is_not_told_to_the_model"],
    ),
    Mutant(
        "what the commands of a response said does not reach the model",
        "the model is asked again with what its calls gave",
        TURN,
        "            if not response.calls and not self.control.unconsumed:\n",
        "            if not self.control.unconsumed:\n",
        [f"{TURN_TESTS}::test_what_is_posted_as_context_is_exactly_what_the_model_is_sent_next"],
    ),
    Mutant(
        "a steer waits for the end of the stream",
        CUTS,
        TURN,
        "        if self._stream is not None:\n            self._stream.cancel()\n",
        "",
        [f"{TURN_TESTS}::test_a_steer_abandons_the_stream_at_once"],
    ),
    Mutant(
        "a message that comes as the response ends is not taken",
        CUTS,
        TURN,
        "            if not response.calls and not self.control.unconsumed:\n",
        "            if not response.calls:\n",
        [f"{TURN_TESTS}::test_a_steer_in_the_moment_the_response_ends_gets_its_own_request"],
    ),
    Mutant(
        "a stream that fails cuts off the commands that it began",
        CUTS,
        TURN,
        "                    failure = caught\n",
        "                    raise\n",
        [f"{TURN_TESTS}::test_a_command_that_began_is_finished_before_its_response_fails"],
    ),
    Mutant(
        "a response is asked for again while its commands still run",
        CUTS,
        TURN,
        "        while self._running:\n            self._idle = trio.Event()\n           "
        " await self._idle.wait()\n",
        "",
        [f"{TURN_TESTS}::test_a_restarted_stream_waits_for_the_commands_of_the_broken_one"],
    ),
    Mutant(
        "the answer cancel lets the other commands of the response run on",
        CUTS,
        TURN,
        "            turn.cancelled_by_user = True\n            scope.cancel()\n",
        "            turn.cancelled_by_user = True\n",
        [TURN_TESTS, "tests/agent/tools/test_exec_command.py"],
    ),
    Mutant(
        "a call without an answer is sent to the model",
        "agent.context: every call is answered once",
        CONTEXT,
        "            if position not in answered:\n",
        "            if False:\n",
        ["tests/agent/test_context.py::test_a_call_without_an_answer_gets_one"],
    ),
    Mutant(
        "a broken stream is asked for once more than is allowed",
        "agent.model.retry: up to stream_max_retries times",
        RETRY,
        "        if final or self._retries >= most:\n",
        "        if final or self._retries > most:\n",
        ["tests/agent/model/test_retry.py::test_without_retries_the_first_failure_is_the_last"],
    ),
    Mutant(
        "a request is sent once more than is allowed",
        "agent.model.retry: up to request_max_retries times",
        RETRY,
        "tries >= self._config.request_max_retries",
        "tries > self._config.request_max_retries",
        [
            "tests/agent/model/test_retry.py::"
            "test_quiet_retries_used_up_become_reconnects_with_quiet_retries_each"
        ],
    ),
    Mutant(
        "a break in the middle of a response is not told to the turn",
        "agent.model.retry: StreamRestarted after a break that came after an event",
        RETRY,
        "                if self._dirty:\n",
        "                if False:\n",
        ["tests/agent/model/test_retry.py::test_a_break_after_events_is_marked_before_the_next_attempt"],
    ),
    Mutant(
        "what was accepted in the sandbox is accepted outside of it",
        ASKING,
        POLICY,
        "    return (_ESCALATED, *argv) if escalated else tuple(argv)\n",
        "    return tuple(argv)\n",
        ["tests/agent/tools/test_command_policy.py"],
    ),
    Mutant(
        "a command leaves the sandbox under a policy that does not let anybody ask for it",
        ASKING,
        POLICY,
        "        elif escalated:\n            verdict = Refuse(",
        "        elif escalated:\n            verdict = Run(sandboxed=False)\n        elif False:\n"
        "            verdict = Refuse(",
        ["tests/agent/tools/test_command_policy.py"],
    ),
]
