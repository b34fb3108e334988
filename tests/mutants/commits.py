"""Breaks of the writer: what is appended, flushed, stored, taken back, and when callers are told."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

WRITER, APPENDER, DATABASE = "persistence/writer.py", "persistence/appender.py", "persistence/database.py"
FLUSHED = "§4: what a client has seen is durable"
ALL_OR_NOTHING = "docs/durability.md: a commit that fails has not happened"
HALF_LINES = "docs/durability.md: a half-written last line spoils nothing but itself"
FAILING = "tests/persistence/test_commits_that_fail.py"

MUTANTS = [
    Mutant(
        "nothing that is appended is flushed",
        FLUSHED,
        APPENDER,
        "                if asking:\n",
        "                if False:\n",
        [
            "tests/simulation/test_world.py::"
            "test_what_was_flushed_survives_the_loss_of_power_and_what_was_not_may_go"
        ],
    ),
    Mutant(
        "a thread whose history was cut stays as it was when the rest cannot be recorded",
        ALL_OR_NOTHING,
        "actors/thread_actor.py",
        "            if decision.otherwise is not None:\n",
        "            if False:\n",
        [
            "tests/actors/test_history_edits.py::"
            "test_a_thread_whose_history_was_cut_leaves_when_the_rest_cannot_be_recorded"
        ],
    ),
    Mutant(
        "a delete that was cut in the middle is refused when it is asked for again",
        ALL_OR_NOTHING,
        "persistence/relocation.py",
        '(action == "delete" and _is_half_deleted(connection, first))',
        "False",
        [
            "tests/persistence/test_relocation.py::"
            "test_a_delete_whose_rows_could_not_be_removed_is_finished_when_it_is_asked_for_again"
        ],
    ),
    Mutant(
        "the folders of a new rollout are not flushed",
        FLUSHED,
        APPENDER,
        "            sync_path(folder)\n            if folder in",
        "            if folder in",
        ["tests/persistence/test_store_power_cut.py", "tests/end_to_end/test_queue_power_cut.py"],
    ),
    Mutant(
        "callers are told before the group's COMMIT",
        FLUSHED,
        WRITER,
        '        reach("before the transaction")\n',
        """\
        for job in part:
            if not failures and not (isinstance(job, Append) and job.batch and job.batch.relocate):
                job.done(None)
                job.done = lambda error: None
        reach("before the transaction")
""",
        ["tests/simulation/test_world.py::test_a_failing_disk_fails_one_request_and_the_next_one_works"],
    ),
    Mutant(
        "a transaction that failed counts as done",
        ALL_OR_NOTHING,
        WRITER,
        "                return self._not_stored(jobs, error)\n",
        "                return {}\n",
        ["tests/simulation/test_world.py::test_a_failing_disk_fails_one_request_and_the_next_one_works"],
    ),
    Mutant(
        "half of a transaction that failed stays",
        ALL_OR_NOTHING,
        DATABASE,
        '            connection.execute("ROLLBACK")\n',
        '            connection.execute("COMMIT")\n',
        [
            "tests/persistence/test_queue_rows.py::"
            "test_two_rows_of_a_thread_cannot_have_one_order_and_nothing_of_such_a_commit_stays"
        ],
    ),
    Mutant(
        "one impossible commit fails all that share its transaction",
        ALL_OR_NOTHING,
        WRITER,
        "            if len(jobs) == 1 or fails_everything(error):\n",
        "            if True:\n",
        [f"{FAILING}::test_one_impossible_commit_fails_what_stands_behind_it_in_its_file_and_nobody_else"],
    ),
    Mutant(
        "the lines of a commit whose rows could not be stored stay in the file",
        ALL_OR_NOTHING,
        WRITER,
        "            failures.update(self._appender.take_back(job, failure))\n",
        "",
        [f"{FAILING}::test_lines_whose_rows_cannot_be_stored_are_taken_back_and_reading_goes_on"],
    ),
    Mutant(
        "lines that are taken back leave behind what was appended after them",
        ALL_OR_NOTHING,
        APPENDER,
        "            gone, group[at:] = group[at:], []\n",
        "            gone, group[at:] = group[at : at + 1], group[at + 1 :]\n",
        [f"{FAILING}::test_one_impossible_commit_fails_what_stands_behind_it_in_its_file_and_nobody_else"],
    ),
    Mutant(
        "half an append that failed stays in the file",
        ALL_OR_NOTHING,
        APPENDER,
        "                failure.appended = not self._undo(path, appended)\n",
        "",
        [
            "tests/persistence/test_store_failures.py::"
            "test_an_append_that_fails_is_cut_off_and_can_be_tried_again"
        ],
    ),
    Mutant(
        "what is taken back makes the index stale",
        "persistence/appender: taking back restores the file's time of change, too",
        APPENDER,
        "                os.utime(path, ns=(status.st_atime_ns, appended.mtime_ns))\n",
        "",
        [FAILING],
    ),
    Mutant(
        "what was flushed and taken back may be there again after a power cut",
        ALL_OR_NOTHING,
        APPENDER,
        "        if path in self._flushed:\n",
        "        if False:\n",
        [
            "tests/persistence/test_taken_back.py::"
            "test_flushed_lines_that_were_taken_back_are_not_there_after_a_power_cut"
        ],
    ),
    Mutant(
        "a flush that failed counts as done",
        FLUSHED,
        APPENDER,
        "                failures.update(self.take_back(asking[0], "
        'StoreError.from_os("flush", path, error)))\n',
        '                log.error("could not flush", exc_info=error)\n',
        ["tests/simulation/test_world.py::test_a_failing_disk_fails_one_request_and_the_next_one_works"],
    ),
    Mutant(
        "lines that can neither be stored nor taken back are not told of",
        "docs/durability.md: a message is in exactly one of queue and transcript",
        APPENDER,
        "            failure.appended = not self._undo(path, gone[0])\n",
        "            self._undo(path, gone[0])\n",
        [f"{FAILING}::test_lines_that_can_neither_be_stored_nor_taken_back_are_told_of"],
    ),
    Mutant(
        "half a line at the end is not ended before the next append",
        HALF_LINES,
        APPENDER,
        """            if os.pread(descriptor, 1, status.st_size - 1) != b"\\n":\n""",
        "            if False:\n",
        ["tests/persistence/test_damaged_rollouts.py::test_a_half_written_last_line_spoils_only_itself"],
    ),
    Mutant(
        "a last line that is still growing is read",
        HALF_LINES,
        "persistence/rollout_files.py",
        """\
        elif rest:
            pending.append(rest)
""",
        """\
        elif rest:
            pending.append(rest)
    if pending and held:
        yield offset, held, b"".join(pending)
""",
        ["tests/persistence/test_damaged_rollouts.py"],
    ),
    Mutant(
        "the index does not learn how far it has come",
        "§4: the index is derived, and fits its rollout",
        APPENDER,
        "        job.operations = [*indexer.operations, save(indexer.state)]\n",
        "        job.operations = [*indexer.operations]\n",
        ["tests/persistence/test_index_is_derived.py::test_a_commit_alone_leaves_the_same_rows_as_a_rebuild"],
    ),
    Mutant(
        "a batch appends to a file that somebody has cut, as if it were whole",
        "§4: the rollout is the source of truth",
        APPENDER,
        "            (state.file_size, state.file_mtime_ns) == (status.st_size, status.st_mtime_ns)\n"
        "        )  # fmt: skip",
        "            True\n        )  # fmt: skip",
        [
            "tests/persistence/test_index_is_derived.py::"
            "test_a_file_that_was_cut_shorter_is_indexed_again_before_it_is_appended_to"
        ],
    ),
    Mutant(
        "a failure of the writer that nobody has thought of counts as success",
        "persistence.writer: a job is told what went wrong",
        WRITER,
        "id(job) not in finished:\n                    job.done(failure)\n",
        "id(job) not in finished:\n                    job.done(None)\n",
        [
            "tests/persistence/test_store_failures.py::"
            "test_an_unexpected_failure_of_the_writer_is_told_to_whoever_waits"
        ],
    ),
    Mutant(
        "a closed store says that it has written",
        "rule 13: shutdown is ordered",
        WRITER,
        '            job.done(StoreError("the store is closed", "closed"))\n',
        "            job.done(None)\n",
        ["tests/persistence/test_store_failures.py::test_a_closed_store_says_so"],
    ),
    Mutant(
        "a cancelled commit is not waited for",
        "Store.commit: from then on the outcome is waited for, cancelled or not",
        "persistence/store.py",
        "        with trio.CancelScope(shield=True):\n            await finished.wait()\n",
        "        await finished.wait()\n",
        [
            "tests/persistence/test_store_failures.py::"
            "test_a_commit_under_way_is_waited_for_although_cancelled"
        ],
    ),
]
