"""Breaks of the mailbox, of "decide, commit, publish", and of how threads come and go."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MAILBOX, ACTOR, SUPERVISOR = "actors/mailbox.py", "actors/thread_actor.py", "actors/supervisor.py"
DEADLINES = "actors/deadlines.py"
ONE_ORDER = "rule 1: one mailbox, in arrival order"
BOUNDED = "rule 12: bounded everywhere"
COMMIT_FIRST = "§2: commit, then publish"
IN_ITS_ROOM = "rule 9: failure stays in its room"
DEADLINE = "rule 6: timers are deadlines"
SINGLE_FLIGHT = "rule 10: loading is single-flight"
UNLOADING = "rule 8: unloading goes through the supervisor"
ORDERED_END = "rule 13: shutdown is ordered"

MUTANTS = [
    Mutant(
        "a message overtakes those that wait",
        ONE_ORDER,
        MAILBOX,
        "        self._waiting.append(message)\n",
        "        self._waiting.appendleft(message)\n",
        ["tests/actors/test_mailbox.py::test_messages_come_in_the_order_they_were_put_whoever_put_them"],
    ),
    Mutant(
        "a mailbox takes one message more than its capacity",
        BOUNDED,
        MAILBOX,
        "if len(self._waiting) >= self.capacity:\n            raise Overloaded",
        "if len(self._waiting) > self.capacity:\n            raise Overloaded",
        ["tests/actors/test_mailbox.py::test_clients_are_refused_at_the_bound_and_the_daemon_is_not"],
    ),
    Mutant(
        "a turn does not wait for room in the mailbox",
        BOUNDED,
        MAILBOX,
        "while len(self._waiting) >= self.capacity:\n            await self._posters.park()",
        "await trio.lowlevel.checkpoint()",
        ["tests/actors/test_mailbox.py::test_a_turn_waits_for_room_and_keeps_its_order"],
    ),
    Mutant(
        "who is cancelled while posting has posted all the same",
        "rule 2: a turn that is cancelled posts nothing more",
        MAILBOX,
        "        await trio.lowlevel.checkpoint_if_cancelled()\n",
        "",
        ["tests/actors/test_mailbox.py::test_a_post_that_is_cancelled_has_added_nothing"],
    ),
    Mutant(
        "the deadline beats a message that came in the same instant",
        DEADLINE,
        MAILBOX,
        "if scope.cancelled_caught and not self._waiting:",
        "if scope.cancelled_caught:",
        ["tests/actors/test_mailbox.py::test_no_wait_ends_without_a_message_while_one_is_there"],
    ),
    Mutant(
        "a flood of messages keeps all other tasks from running",
        "rule 9: every other thread goes on",
        MAILBOX,
        "                await trio.lowlevel.checkpoint()\n",
        "                pass\n",
        ["tests/actors/test_mailbox.py::test_a_flood_lets_other_tasks_run"],
    ),
    Mutant(
        "a step is published before it is committed",
        COMMIT_FIRST,
        ACTOR,
        "            await self._commit(decision)\n        except StoreError as error:\n "
        "           log.error(",
        "            self._adopt(decision)\n            await self._commit(decision)\n            return\n"
        "        except StoreError as error:\n            log.error(",
        ["tests/simulation/test_world.py::test_a_failing_disk_fails_one_request_and_the_next_one_works"],
    ),
    Mutant(
        "a step whose commit failed is published all the same",
        COMMIT_FIRST,
        ACTOR,
        "            await self._unmake(message)\n            self._refuse(message, "
        "InternalError(str(error)))\n"
        "            if error.appended:",
        "            self._adopt(decision)\n            return\n            if error.appended:",
        [
            "tests/actors/test_failures.py::"
            "test_a_turn_that_cannot_begin_on_disk_is_refused_and_nobody_hears_of_it"
        ],
    ),
    Mutant(
        "a turn that could not be recorded goes on",
        "docs/durability.md: a turn that cannot be recorded ends as failed, visibly",
        ACTOR,
        '            decision = await self._broken(f"the turn could not be recorded: {error}")\n',
        "            return\n",
        [
            "tests/actors/test_failures.py::"
            "test_a_turn_that_cannot_be_recorded_ends_as_failed_and_shows_nothing_of_what_is_lost"
        ],
    ),
    Mutant(
        "a broken actor does not answer the request in its hands",
        IN_ITS_ROOM,
        ACTOR,
        "            self._refuse(self._in_hand, error)\n        with",
        "            pass\n        with",
        ["tests/actors/test_failures.py::test_the_request_whose_own_step_breaks_is_answered_too"],
    ),
    Mutant(
        "a broken actor forgets what waits in its mailbox",
        IN_ITS_ROOM,
        ACTOR,
        "            for message in self.mailbox.drain():\n                self._refuse(message, error)\n",
        "            self.mailbox.drain()\n",
        [
            "tests/actors/test_failures.py::"
            "test_a_broken_actor_answers_everybody_ends_its_turn_and_leaves_the_others_alone"
        ],
    ),
    Mutant(
        "a broken actor takes the supervisor with it",
        IN_ITS_ROOM,
        ACTOR,
        "            await self._fail()\n        finally:",
        "            await self._fail()\n            raise\n        finally:",
        [
            "tests/actors/test_failures.py::"
            "test_a_broken_actor_answers_everybody_ends_its_turn_and_leaves_the_others_alone"
        ],
    ),
    Mutant(
        "an actor goes although messages wait for it",
        UNLOADING,
        SUPERVISOR,
        "        if len(actor.mailbox):\n            return False\n",
        "",
        ["tests/actors/test_loading.py"],
    ),
    Mutant(
        "a thread that runs a turn is unloaded when nobody watches",
        DEADLINE,
        DEADLINES,
        "if state is None or state.turn is not None or state.subscribers:",
        "if state is None or state.subscribers:",
        ["tests/actors/test_loading.py::test_a_running_turn_keeps_a_thread_that_nobody_watches"],
    ),
    Mutant(
        "a watched thread is unloaded",
        DEADLINE,
        DEADLINES,
        "if state is None or state.turn is not None or state.subscribers:",
        "if state is None or state.turn is not None:",
        [
            "tests/actors/test_residency.py::"
            "test_a_watched_thread_lets_its_runtime_go_after_the_idle_time_and_stays_loaded"
        ],
    ),
    Mutant(
        "what a thread does in between does not put off its unloading",
        DEADLINE,
        ACTOR,
        "                await self._handle(message)\n                self._deadlines.handled()\n",
        "                await self._handle(message)\n",
        ["tests/actors/test_loading.py::test_an_idle_thread_without_a_watcher_is_unloaded_after_the_delay"],
    ),
    Mutant(
        "every resume loads the thread anew",
        SINGLE_FLIGHT,
        SUPERVISOR,
        "        actor = self._actors.get(thread_id) or self._new_actor(thread_id)\n",
        "        actor = self._new_actor(thread_id)\n",
        ["tests/actors/test_loading.py::test_resumes_at_the_same_time_share_one_actor_and_one_load"],
    ),
    Mutant(
        "the next incarnation reads the disk while the old one still writes",
        UNLOADING,
        SUPERVISOR,
        "            if previous is not None:\n                await previous.wait()\n",
        "",
        [
            "tests/actors/test_loading.py::"
            "test_the_next_incarnation_reads_the_disk_only_when_the_old_one_has_finished"
        ],
    ),
    Mutant(
        "what waits for a thread that is put away is forgotten",
        UNLOADING,
        SUPERVISOR,
        "                    self._hand(successor, message, message.reply.peer)\n",
        "                    pass\n",
        [
            "tests/actors/test_archiving.py::"
            "test_what_stands_behind_an_archive_is_answered_once_as_for_an_archived_thread"
        ],
    ),
    Mutant(
        "a client that has gone before its resume was served stays subscribed",
        UNLOADING,
        SUPERVISOR,
        "        if peer.id not in self._peers:\n            actor.mailbox.put_always(PeerGone(peer))\n",
        "",
        [
            "tests/actors/test_archiving.py::"
            "test_a_client_that_has_gone_before_its_resume_was_served_pins_nothing"
        ],
    ),
    Mutant(
        "a descendant is loaded while its parent's archive moves its file",
        UNLOADING,
        SUPERVISOR,
        "            if put_aside:\n                await self._put_aside.back(thread_id)\n",
        "",
        [
            "tests/actors/test_archiving.py::"
            "test_a_descendant_that_is_resumed_while_its_parent_goes_is_archived_and_says_so"
        ],
    ),
    Mutant(
        "a client that has gone stays subscribed",
        DEADLINE,
        SUPERVISOR,
        "            for actor in self._actors.values():\n                "
        "actor.mailbox.put_always(PeerGone(peer))\n",
        "            pass\n",
        ["tests/actors/test_loading.py::test_an_idle_thread_without_a_watcher_is_unloaded_after_the_delay"],
    ),
    Mutant(
        "a runtime goes although a command still runs in it",
        "rule 8: two levels of residency",
        ACTOR,
        "        if self.pinned:\n",
        "        if False:\n",
        [
            "tests/actors/test_residency.py::"
            "test_a_running_turn_a_command_in_the_background_and_an_open_question_pin_the_runtime"
        ],
    ),
    Mutant(
        "watching a thread keeps its runtime",
        "rule 8: watching never pins a runtime",
        "actors/residency.py",
        "return math.inf if self._used_at is None else self._used_at + self._idle_seconds",
        "return math.inf",
        [
            "tests/actors/test_residency.py::"
            "test_a_watched_thread_lets_its_runtime_go_after_the_idle_time_and_stays_loaded"
        ],
    ),
    Mutant(
        "a daemon that drains starts new turns",
        ORDERED_END,
        "actors/turns.py",
        "    if step.draining():\n        decision = Decision(state)\n",
        "    if False:\n        decision = Decision(state)\n",
        ["tests/actors/test_failures.py::test_a_draining_daemon_finishes_its_turns_and_takes_no_new_ones"],
    ),
    Mutant(
        "the end of the daemon does not wait for what its threads still write",
        ORDERED_END,
        SUPERVISOR,
        "        for actor in actors:\n            await actor.finished.wait()\n",
        "        await trio.lowlevel.checkpoint()\n",
        ["tests/actors/test_failures.py::test_stopping_interrupts_what_runs_and_answers_what_waits"],
    ),
]
