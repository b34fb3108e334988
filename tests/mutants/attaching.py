"""Breaks of attaching, of the numbers that replay lives by, and of questions to the clients."""

from __future__ import annotations

from tests.mutants.mutant import EXPLORATION, Mutant

ATTACH, DECIDER, QUESTIONS = "actors/attach.py", "actors/decider.py", "actors/questions.py"
PUBLISHER, REPLAY = "actors/publisher.py", "actors/replay.py"
ATOMIC = "rule 4: attach is atomic"
PENDING = "rule 4: pending requests are replayed"
NUMBERS = "docs/attach.md: exactly what was missed"
FIRST_ANSWER = "rule 2: one question, one answer"

_SNAPSHOT = """\
        found = await attach.snapshot(
            state, message, self._store, publisher.ring, epoch, publisher.live.shown()
        )
        return attach.resumed(state, message, found, epoch)
"""

MUTANTS = [
    Mutant(
        "a resume takes its snapshot in one step and subscribes in another",
        ATOMIC,
        DECIDER,
        _SNAPSHOT,
        """\
        taken = self.__dict__.setdefault("taken", {})
        if id(message) not in taken:
            taken[id(message)] = await attach.snapshot(
                state, message, self._store, publisher.ring, epoch, publisher.live.shown()
            )
            self._runtime._mailbox.put_always(message)
            return Decision(state)
        return attach.resumed(state, message, taken.pop(id(message)), epoch)
""",
        ["tests/actors/test_attach.py::test_who_attaches_at_any_event_ends_with_what_the_others_have"],
    ),
    Mutant(
        "a snapshot has nothing of the items in progress",
        ATOMIC,
        DECIDER,
        "state, message, self._store, publisher.ring, epoch, publisher.live.shown()",
        "state, message, self._store, publisher.ring, epoch, []",
        [
            "tests/actors/test_replay.py::"
            "test_a_snapshot_in_the_middle_of_a_text_has_the_text_so_far_and_the_rest_follows"
        ],
    ),
    Mutant(
        "a snapshot says the number before the last one",
        NUMBERS,
        PUBLISHER,
        "value.seq = self.ring.seq\n",
        "value.seq = self.ring.seq - 1\n",
        [
            "tests/actors/test_replay.py::"
            "test_who_leaves_right_after_its_snapshot_gets_exactly_what_followed_it"
        ],
    ),
    Mutant(
        "who joins hears of the status that it joins by under a number",
        NUMBERS,
        PUBLISHER,
        "[peer for peer in self._audience.subscribers() if peer is not joining]",
        "self._audience.subscribers()",
        [
            "tests/actors/test_replay.py::"
            "test_a_thread_that_was_unloaded_meanwhile_never_replays_the_numbers_of_its_former_life"
        ],
    ),
    Mutant(
        "a replay begins with the last thing that the client has seen",
        NUMBERS,
        REPLAY,
        "for number, message in self._kept if number > seq]",
        "for number, message in self._kept if number >= seq]",
        [
            "tests/actors/test_replay.py::"
            "test_who_left_after_any_event_and_comes_back_at_any_later_one_ends_with_what_the_others_have"
        ],
    ),
    Mutant(
        "a replay is given although its first message is not kept any more",
        NUMBERS,
        REPLAY,
        "if not self._kept or not self._kept[0][0] - 1 <= seq < self.seq:",
        "if not self._kept or not self._kept[0][0] - 2 <= seq < self.seq:",
        [
            "tests/actors/test_replay.py::"
            "test_what_the_ring_has_let_go_of_is_a_fresh_snapshot_and_what_it_holds_is_replayed"
        ],
    ),
    Mutant(
        "a number of another life of the daemon is taken for one of this",
        NUMBERS,
        ATTACH,
        "    if params.after_seq is not None and params.epoch == epoch and state.announced:",
        "    if params.after_seq is not None and state.announced:",
        ["tests/actors/test_attach.py::test_a_wrong_epoch_or_a_number_from_the_future_gets_a_snapshot"],
    ),
    Mutant(
        "who comes back to an unloaded thread gets a replay, which lacks the number of its return",
        NUMBERS,
        ATTACH,
        " and params.epoch == epoch and state.announced:",
        " and params.epoch == epoch:",
        [
            "tests/actors/test_replay.py::"
            "test_who_comes_back_to_an_unloaded_thread_gets_a_snapshot_and_numbers_without_a_gap"
        ],
    ),
    Mutant(
        "the next incarnation of a thread counts from the beginning",
        NUMBERS,
        "actors/supervisor.py",
        "self._seq_floor = max(self._seq_floor, actor.seq)",
        "self._seq_floor = 0",
        [
            "tests/actors/test_replay.py::"
            "test_a_thread_that_was_unloaded_meanwhile_never_replays_the_numbers_of_its_former_life"
        ],
    ),
    Mutant(
        "who is not attached gets numbers, too",
        NUMBERS,
        PUBLISHER,
        "others = Outgoing(encode_notification(method, params, now), method)",
        "others = Outgoing(data, method)",
        ["tests/actors/test_replay.py::test_only_who_is_attached_gets_numbers"],
    ),
    Mutant(
        "a text delta gets the number of the message before it",
        NUMBERS,
        PUBLISHER,
        "now, seq, epoch = self._step.now_ms, self.ring.next_seq(), self._step.epoch",
        "now, seq, epoch = self._step.now_ms, self.ring.seq, self._step.epoch",
        [
            "tests/actors/test_replay.py::"
            "test_who_leaves_right_after_its_snapshot_gets_exactly_what_followed_it"
        ],
    ),
    Mutant(
        "who attaches is not asked what is pending",
        PENDING,
        ATTACH,
        "    decision.notify(*goal_note(after))\n    replay_pending(decision, after, peer)\n",
        "    decision.notify(*goal_note(after))\n",
        [
            "tests/simulation/test_reconnecting.py::"
            "test_an_approval_survives_the_connection_over_which_it_was_asked"
        ],
    ),
    Mutant(
        "who comes back by number is not asked what is pending",
        PENDING,
        ATTACH,
        "        replay_pending(decision, after, peer)\n        return decision\n",
        "        return decision\n",
        ["tests/actors/test_approvals.py", "tests/actors/test_replay.py", "tests/actors/test_questions.py"],
    ),
    Mutant(
        "the answer of who was asked again does not count",
        PENDING,
        ATTACH,
        "asked=entry.asked | {peer.id}",
        "asked=entry.asked",
        [
            "tests/actors/test_interleavings.py::"
            "test_an_answer_of_a_client_that_was_never_asked_changes_nothing_until_it_attaches"
        ],
    ),
    Mutant(
        "a pending question is asked again before the snapshot",
        "rule 3: one order",
        ATTACH,
        "    decision.effects.append(AnswerResume(message.reply, result))\n",
        "    replay_pending(decision, after, peer)\n"
        "    decision.effects.append(AnswerResume(message.reply, result))\n",
        [
            "tests/actors/test_approvals.py::"
            "test_who_attaches_is_asked_what_is_pending_under_the_same_ids_after_the_answer"
        ],
    ),
    Mutant(
        "a question that is answered stays open for a second answer",
        FIRST_ANSWER,
        QUESTIONS,
        "pending=tuple(each for each in state.pending if each is not entry)",
        "pending=state.pending",
        ["tests/actors/test_approvals.py::test_late_duplicate_and_foreign_answers_change_nothing"],
    ),
    Mutant(
        "a client that was never asked decides",
        FIRST_ANSWER,
        QUESTIONS,
        "if message.peer_id not in found.asked:",
        "if False:",
        [
            "tests/actors/test_interleavings.py::"
            "test_an_answer_of_a_client_that_was_never_asked_changes_nothing_until_it_attaches"
        ],
    ),
    Mutant(
        "nobody is told that a question was answered",
        FIRST_ANSWER,
        QUESTIONS,
        '    decision.notify(\n        "serverRequest/resolved",\n'
        "        RequestResolved(thread_id=state.record.id, request_id=entry.request_id),\n    )\n",
        "",
        ["tests/actors/test_approvals.py::test_an_answer_reaches_the_turn_and_everybody_is_told"],
    ),
    Mutant(
        "the end of a turn leaves its questions open on the clients' screens",
        FIRST_ANSWER,
        "actors/turns.py",
        "    for request in state.pending:\n",
        "    for request in ():\n",
        ["tests/actors/test_questions.py::test_the_end_of_the_turn_withdraws_the_question"],
    ),
    Mutant(
        "a question of a turn that is over is asked",
        FIRST_ANSWER,
        QUESTIONS,
        "    if turn is None or turn.id != message.turn_id:\n        return "
        "Decision(state, effects=[FillSlot",
        "    if turn is None:\n        return Decision(state, effects=[FillSlot",
        ["tests/actors/test_one_end.py::test_what_an_ended_turn_still_reports_reaches_nobody"],
    ),
    Mutant(
        "the policy for questions without anybody answers although somebody came back",
        "docs/configuration.md: unattended_secs counts while nobody is there",
        "actors/deadlines.py",
        "alone_with = () if after.subscribers else tuple(",
        "alone_with = tuple(",
        [
            "tests/actors/test_questions.py::"
            "test_who_comes_back_in_time_is_asked_again_and_the_wait_begins_anew"
        ],
    ),
    Mutant(
        "nobody who attaches is ever asked what is pending",
        PENDING,
        ATTACH,
        "SendRequest(entry.request_id, entry.method, entry.params, only=peer) for entry in state.pending",
        "SendRequest(entry.request_id, entry.method, entry.params, only=peer) for entry in ()",
        command=EXPLORATION,
    ),
]
