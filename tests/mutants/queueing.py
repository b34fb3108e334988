"""Breaks of the queue: a message is in exactly one of queue and transcript, and runs once, in its order."""

from __future__ import annotations

from tests.mutants.mutant import EXPLORATION, Mutant

ROWS, DRAIN, CLAIMS = "actors/queue_rows.py", "actors/queue_drain.py", "actors/queue_claims.py"
WAITING, PAGES, DECIDER = "actors/waiting_rows.py", "actors/queue_pages.py", "actors/decider.py"
QUEUEING, STORED, ACTOR = "actors/queueing.py", "persistence/queue.py", "actors/thread_actor.py"
ONE_PLACE = "§4: no queued turn is lost, none runs twice"
IDLE = "rule 5: drains only when the thread is idle"
FIFO = "rule 5: a failed head blocks the queue"
STORED_FIRST = "§4: the result comes after the commit"
ORDER = "docs/durability.md: the answer to an add is sent before its row is claimed"
CRASH = "tests/simulation/test_world.py::test_a_crash_at_any_point_leaves_each_queued_message_in_one_place"

MUTANTS = [
    Mutant(
        "the queue row is deleted before its message is appended",
        ONE_PLACE,
        DRAIN,
        "        decision.queue.append(rows.change(queue.claims[-1]))\n",
        "        decision.queue.append(rows.remove(row.id))\n",
        [CRASH],
    ),
    Mutant(
        "a claim is stored without the turn that it is for",
        ONE_PLACE,
        STORED,
        "        row.failure,\n        row.turn_id,\n        row.item_id,\n",
        "        row.failure,\n        None,\n        row.item_id,\n",
        [CRASH],
    ),
    Mutant(
        "a queue row that became a turn stays in the table",
        ONE_PLACE,
        STORED,
        "    return [remove(row.id), (remember, (row.id, thread_id, row.client_id, row.turn_id))]",
        "    return [(remember, (row.id, thread_id, row.client_id, row.turn_id))]",
        [
            "tests/persistence/test_queue_rows.py::"
            "test_a_started_row_is_gone_and_found_by_its_id_and_by_its_clients_id"
        ],
    ),
    Mutant(
        "the row goes with a line that is not on the disk",
        ONE_PLACE,
        CLAIMS,
        "        decision.fsync = True\n",
        "",
        [CRASH],
    ),
    Mutant(
        "a claimed row is tried again after a crash, unasked",
        ONE_PLACE,
        STORED,
        '            state="failed",\n            failure=INTERRUPTED,\n',
        '            state="pending",\n            failure=None,\n',
        ["tests/actors/test_queue.py::test_a_claim_that_a_crash_has_left_is_failed_and_says_so"],
    ),
    Mutant(
        "a claimed row counts as run after a crash, whatever the rollout says",
        ONE_PLACE,
        STORED,
        "        if recorded is not None:\n",
        "        if True:\n",
        [CRASH],
    ),
    Mutant(
        "a claim is settled whatever has become of the row meanwhile",
        ONE_PLACE,
        STORED,
        "AND state='dispatching' AND dispatch_turn_id IS ?",
        "AND ? IS NOT NULL",
        [
            "tests/persistence/test_queue_rows.py::"
            "test_a_load_that_was_cancelled_settles_nothing_that_has_changed_since"
        ],
    ),
    Mutant(
        "a claim is cleared by any user message",
        ONE_PLACE,
        ROWS,
        "(claim for claim in self.claims if claim.item_id == item_id)",
        "iter(self.claims)",
        ["tests/actors/test_queue.py::test_another_message_in_its_turn_does_not_end_a_claim"],
    ),
    Mutant(
        "a row whose turn ended without its message is lost",
        ONE_PLACE,
        CLAIMS,
        "        queue = queue.without_claim(claim).with_row(row)\n",
        "        queue = queue.without_claim(claim)\n",
        [
            "tests/actors/test_queue.py::"
            "test_a_turn_that_ends_without_its_message_leaves_a_failed_row_that_is_shown"
        ],
    ),
    Mutant(
        "a message that a failed commit has left in the transcript stays in the queue, too",
        ONE_PLACE,
        ACTOR,
        "            if error.appended:\n",
        "            if False:\n",
        [
            "tests/actors/test_queue_on_a_bad_disk.py::"
            "test_a_message_that_stayed_in_the_transcript_is_not_in_the_queue"
        ],
    ),
    Mutant(
        "the queue drains while a turn runs",
        IDLE,
        ROWS,
        "        and state.turn is None\n        and not queue.claims\n",
        "        and not queue.claims\n",
        ["tests/actors/test_queue.py::test_rows_run_one_after_another_and_only_when_a_direct_turn_is_over"],
    ),
    Mutant(
        "a thread that nobody knows as loaded runs its queue",
        IDLE,
        ROWS,
        "        state.announced\n        and state.turn is None\n",
        "        state.turn is None\n",
        ["tests/actors/test_queue.py::test_a_thread_that_is_not_loaded_keeps_its_rows_until_it_is_resumed"],
    ),
    Mutant(
        "a paused queue goes on by itself",
        "docs/durability.md: a paused queue waits",
        ROWS,
        "        and not queue.paused\n",
        "",
        [
            "tests/actors/test_queue.py::"
            "test_with_the_pause_setting_an_interrupt_stops_the_queue_until_it_is_told_to_go_on"
        ],
    ),
    Mutant(
        "a pause is forgotten with the process",
        "docs/durability.md: a paused queue waits",
        CLAIMS,
        "        decision.queue.append(rows.pause(state.record.id, pause))\n",
        "",
        [
            "tests/actors/test_queue.py::"
            "test_with_the_pause_setting_an_interrupt_stops_the_queue_until_it_is_told_to_go_on"
        ],
    ),
    Mutant(
        "a failed head is tried again, unasked",
        FIFO,
        ROWS,
        '        and head.state == "pending"\n',
        "",
        ["tests/actors/test_queue.py::test_a_claim_that_a_crash_has_left_is_failed_and_says_so"],
    ),
    Mutant(
        "a failed row that is updated stays failed",
        FIFO,
        QUEUEING,
        'replace(row, params=wire, state="pending", failure=None, updated_at_ms=now)',
        "replace(row, params=wire, updated_at_ms=now)",
        ["tests/actors/test_queue.py::test_a_failed_head_blocks_the_others_until_it_is_dealt_with"],
    ),
    Mutant(
        "a row that is added goes before those that wait",
        FIFO,
        WAITING,
        "        blocks = self._with_block(block, (*before[:at], row, *before[at:]))\n",
        "        blocks = self._with_block(block, (row, *before))\n",
        ["tests/actors/test_queue.py::test_rows_run_one_after_another_and_only_when_a_direct_turn_is_over"],
    ),
    Mutant(
        "a reorder that leaves a row out loses it",
        "a reorder names every row exactly once",
        ROWS,
        "        if len(ids) != len(known) or set(ids) != known.keys():\n",
        "        if not set(ids) <= known.keys():\n",
        ["tests/actors/test_queue.py::test_bad_requests_are_refused_in_words"],
    ),
    Mutant(
        "a reorder gives rows numbers that others still have",
        "docs/durability.md: the order of the rows is unique in a thread",
        ROWS,
        "for order, each in enumerate(ids, self.next_order())]",
        "for order, each in enumerate(ids, 1)]",
        [
            "tests/actors/test_waiting_rows.py::"
            "test_rows_are_reordered_only_all_of_them_and_to_numbers_that_none_has_or_had"
        ],
    ),
    Mutant(
        "a reorder is kept in memory only",
        STORED_FIRST,
        QUEUEING,
        "            decision.queue.append(rows.reorder(queue.rows))\n",
        "            pass\n",
        ["tests/actors/test_queue.py::test_rows_can_be_reordered_whatever_their_orders_and_beside_a_claim"],
    ),
    Mutant(
        "a change of the queue and a page of it show rows of any length",
        "rule 12: bounded everywhere",
        PAGES,
        "        if left < 0:\n            break\n",
        "",
        [
            "tests/actors/test_queue_pages.py::"
            "test_a_row_that_is_longer_than_a_page_is_in_no_change_and_is_listed_alone"
        ],
    ),
    Mutant(
        "the list of a queue never gets beyond a row that is longer than a page",
        "docs/deviations.md: at least one row, and nextCursor goes on",
        PAGES,
        "_fitting(found) or [view(row) for row in found[:1]]",
        "_fitting(found)",
        [
            "tests/actors/test_queue_pages.py::"
            "test_a_row_that_is_longer_than_a_page_is_in_no_change_and_is_listed_alone"
        ],
    ),
    Mutant(
        "a steering add is acknowledged and not stored",
        STORED_FIRST,
        QUEUEING,
        "        decision.queue += [rows.insert(state.record.id, row), "
        "rows.change(decision.state.queue.claims[-1])]\n",
        "",
        [
            "tests/actors/test_queue_strategies.py::test_a_steering_add_is_on_disk_before_its_answer_and_once_only"
        ],
    ),
    Mutant(
        "the first claim of a turn ends its other claims, too",
        ONE_PLACE,
        ROWS,
        "claims=tuple(each for each in self.claims if each.id != claim.id)",
        "claims=()",
        [
            "tests/actors/test_queue_strategies.py::"
            "test_a_turn_from_a_row_that_is_steered_by_another_records_both_and_claims_neither_any_more"
        ],
    ),
    Mutant(
        "an add under a client id that waits already adds another row",
        "an add is idempotent by clientUserMessageId",
        QUEUEING,
        "            if again is not None:\n",
        "            if False:\n",
        [
            "tests/actors/test_queue_strategies.py::"
            "test_adding_again_under_the_same_client_id_adds_nothing_at_any_time"
        ],
    ),
    Mutant(
        "an add under a client id that has run adds another row",
        "an add is idempotent by clientUserMessageId",
        QUEUEING,
        "        found = await context.store.queued_turn_started(state.record.id, client_id=client_id)\n",
        "        found = None\n",
        [
            "tests/actors/test_queue_strategies.py::"
            "test_adding_again_under_the_same_client_id_adds_nothing_at_any_time"
        ],
    ),
    Mutant(
        "an add is acknowledged and not stored",
        STORED_FIRST,
        QUEUEING,
        "        decision.queue.append(rows.insert(state.record.id, row))\n",
        "",
        ["tests/actors/test_queue.py::test_a_thread_that_is_not_loaded_keeps_its_rows_until_it_is_resumed"],
    ),
    Mutant(
        "a row of a thread that is nowhere on the disk is lost with the process",
        STORED_FIRST,
        QUEUEING,
        "        rollout.materialise(decision, now, step.runtime.new_id())\n",
        "",
        [
            "tests/actors/test_queue.py::"
            "test_a_row_of_a_fresh_thread_is_found_again_although_its_turn_never_began"
        ],
    ),
    Mutant(
        "a deleted row is gone in memory only",
        STORED_FIRST,
        QUEUEING,
        "        decision.queue.append(rows.remove(row_id))\n",
        "",
        ["tests/actors/test_queue.py::test_rows_can_be_reordered_and_deleted_while_a_turn_runs"],
    ),
    Mutant(
        "an interrupting add is answered after the end of the turn that it interrupts",
        ORDER,
        QUEUEING,
        "        decision.effects[:0] = answer.effects\n",
        "        decision.effects += answer.effects\n",
        [
            "tests/actors/test_queue_strategies.py::"
            "test_an_interrupting_add_is_answered_ends_the_turn_and_runs_before_all_others"
        ],
    ),
    Mutant(
        "an interrupting add runs behind all others",
        "whenBusy: interrupt is what the user wants instead of what runs",
        QUEUEING,
        "            row = replace(row, order=state.queue.first_order())\n",
        "",
        [
            "tests/actors/test_queue_strategies.py::"
            "test_an_interrupting_add_is_answered_ends_the_turn_and_runs_before_all_others"
        ],
    ),
    Mutant(
        "a row that is added beside a claim gets the claim's place",
        "docs/durability.md: the order of the rows is unique in a thread",
        ROWS,
        "row.order if row is not None else 0 for row in (self.rows.last, *self.claims)",
        "row.order if row is not None else 0 for row in (self.rows.last,)",
        ["tests/actors/test_queue.py::test_a_row_that_is_added_beside_a_claim_stands_behind_it"],
    ),
    Mutant(
        "the queue is tried on a disk that is known to fail",
        "docs/durability.md: nothing runs from a queue meanwhile",
        DECIDER,
        "self._step.draining() or self._store.health.refuses\n",
        "self._step.draining()\n",
        [
            "tests/actors/test_queue_on_a_bad_disk.py::"
            "test_a_claim_that_could_not_be_stored_is_tried_again_when_the_disk_is_well"
        ],
    ),
    Mutant(
        "a daemon that drains starts what is queued",
        "rule 13: shutdown is ordered",
        DECIDER,
        "self._step.draining() or self._store.health.refuses\n",
        "self._store.health.refuses\n",
        ["tests/actors/test_queue.py::test_a_daemon_that_drains_leaves_the_queue_alone_and_rests"],
    ),
    Mutant(
        "the queues do not go on when the disk is well again",
        "docs/durability.md: every client is told, and the queues go on",
        "actors/disk_watch.py",
        "            self._go_on()\n",
        "",
        [
            "tests/actors/test_queue_on_a_bad_disk.py::"
            "test_a_claim_that_could_not_be_stored_is_tried_again_when_the_disk_is_well"
        ],
    ),
    Mutant(
        "the queue never drains by itself",
        IDLE,
        ROWS,
        "        and not queue.paused\n        and head is not None\n",
        "        and queue.paused\n        and head is not None\n",
        command=EXPLORATION,
    ),
]
