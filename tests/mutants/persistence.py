"""Breaks of what is read: the index, its cursors, what a start believes, and what it saves from damage."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

HISTORY, THREAD_LIST, SCAN = "persistence/history.py", "persistence/thread_list.py", "persistence/scan.py"
RELOCATION, DATABASE, SALVAGE = (
    "persistence/relocation.py",
    "persistence/database.py",
    "persistence/salvage.py",
)
KEYSET = "§4: listing is keyset-paged, no thread is ever left out"
DERIVED = "§4: the index is derived from the rollouts"
POWER = "docs/durability.md: what was not flushed is not believed"
MOVED = "docs/durability.md: a cut archive or delete is finished or was never begun"
DAMAGE = "docs/durability.md: a damaged database is set aside"
PAGES = (
    "tests/persistence/test_thread_list.py::"
    "test_pages_hold_every_thread_once_and_in_order_even_at_equal_times"
)

MUTANTS = [
    Mutant(
        "a page of threads begins with the last row of the page before",
        KEYSET,
        THREAD_LIST,
        """{'<' if descending else '>'} (?, ?)""",
        """{'<=' if descending else '>='} (?, ?)""",
        [PAGES],
    ),
    Mutant(
        "the cursor of a page of threads leaves one out",
        KEYSET,
        THREAD_LIST,
        "            page.next_cursor = _cursor(rows[limit - 1], column)\n",
        "            page.next_cursor = _cursor(rows[limit], column)\n",
        [PAGES],
    ),
    Mutant(
        "threads of one moment come in one order, whichever is asked for",
        KEYSET,
        THREAD_LIST,
        "ORDER BY r.{column} {order}, r.thread_id {order} LIMIT ?",
        "ORDER BY r.{column} {order}, r.thread_id ASC LIMIT ?",
        [PAGES],
    ),
    Mutant(
        "a full page of threads has no cursor when one more is left",
        KEYSET,
        THREAD_LIST,
        "        if len(rows) > limit:\n",
        "        if len(rows) > limit + 1:\n",
        [PAGES],
    ),
    Mutant(
        "a page of turns begins with the last turn of the page before",
        "a page of history holds every turn once",
        HISTORY,
        "page.next_cursor = self._cursor(rows[count - 1], _TURNS_SCOPE, inclusive=False)",
        "page.next_cursor = self._cursor(rows[count - 1], _TURNS_SCOPE, inclusive=True)",
        ["tests/persistence/test_history_pages.py::test_pages_of_turns_hold_every_turn_once"],
    ),
    Mutant(
        "the cursor of a page of items leaves one out",
        "a page of history holds every item once",
        HISTORY,
        "page.next_cursor = self._cursor(rows[count - 1], _ITEMS_SCOPE, inclusive=False)",
        "page.next_cursor = self._cursor(rows[count], _ITEMS_SCOPE, inclusive=False)",
        ["tests/persistence/test_history_pages.py::test_pages_of_items_hold_every_item_once"],
    ),
    Mutant(
        "a cursor of turns is taken for one of items",
        "a cursor that is none of ours is refused",
        HISTORY,
        """body.get("rolloutOrdinal") if ours and body.get("scope") == {"kind": scope} else None""",
        """body.get("rolloutOrdinal") if ours else None""",
        ["tests/persistence/test_history_pages.py::test_a_cursor_that_is_none_is_refused_by_name"],
    ),
    Mutant(
        "a turn that a crash has cut off is shown as running",
        "§4: a turn that was running is shown as interrupted",
        HISTORY,
        """"inProgress" if row["turn_id"] == self._live_turn_id else "interrupted\"""",
        """"inProgress\"""",
        ["tests/persistence/test_reference_sessions.py::test_a_paginated_session_is_read_turn_by_turn"],
    ),
    Mutant(
        "a file that was edited in place under its size is not read again",
        DERIVED,
        SCAN,
        "    return (state.file_size, state.file_mtime_ns) == (status.st_size, status.st_mtime_ns)\n",
        "    return state.file_size == status.st_size\n",
        ["tests/persistence/test_index_is_derived.py::test_a_file_edited_in_place_is_indexed_again"],
    ),
    Mutant(
        "a scan that has been overtaken is stored",
        DERIVED,
        "persistence/writer.py",
        "        if pending or at != job.expected or self._is_superseded(current, job.state):\n",
        "        if at != job.expected and at == NO_ROW:\n",
        [
            "tests/persistence/test_relocation.py::"
            "test_a_scan_of_a_file_that_is_no_longer_the_rollout_is_thrown_away"
        ],
    ),
    Mutant(
        "a read that meets an archive fails",
        "docs/durability.md: a file that moves while it is read is found where it is now",
        "persistence/open_rollout.py",
        "                if left and (rollout.away or state.partial):\n",
        "                if left and state.partial:\n",
        [
            "tests/persistence/test_files_that_move.py::"
            "test_a_thread_that_is_archived_just_when_its_file_is_to_be_opened_is_read_where_it_is"
        ],
    ),
    Mutant(
        "a thread whose file slipped past a look at the folders is dropped",
        KEYSET,
        "persistence/writer.py",
        "if current is None or current.path != job.path or not _is_gone(self._home.root / job.path):\n",
        "if current is None:\n",
        [
            "tests/persistence/test_files_that_move.py::"
            "test_a_thread_whose_file_slips_past_the_look_at_the_folders_is_not_lost"
        ],
    ),
    Mutant(
        "two scans of one file undo each other's pieces, and their readers take a part for the whole",
        DERIVED,
        "persistence/single_flight.py",
        "            while name in self._under_way and not",
        "            while False and not",
        [
            "tests/persistence/test_scans_at_once.py::"
            "test_two_readers_of_a_file_that_is_not_indexed_both_see_all_of_it"
        ],
    ),
    Mutant(
        "a reader takes an index that is being made anew for the whole",
        DERIVED,
        "persistence/open_rollout.py",
        "(rollout.away or state.partial)",
        "rollout.away",
        [
            "tests/persistence/test_scans_at_once.py::"
            "test_a_reader_sees_all_of_a_file_that_begins_to_be_indexed_anew_after_it_has_looked"
        ],
    ),
    Mutant(
        "a name that is given while a start reads those of others is cleared",
        "docs/durability.md: the result of thread/name/set says that the row is committed",
        "persistence/facts.py",
        "WHERE thread_id=? AND name_set<?",
        "WHERE thread_id=? AND ?",
        [
            "tests/persistence/test_facts.py::"
            "test_a_name_given_while_a_start_reads_the_names_that_others_gave_is_kept"
        ],
    ),
    Mutant(
        "a start does not look again for files that moved meanwhile",
        KEYSET,
        "persistence/rebuild.py",
        "(known.keys() - seen) | pipeline.refused",
        "known.keys() - seen",
        [
            "tests/persistence/test_files_that_move.py::"
            "test_a_file_that_is_moved_while_a_start_indexes_it_is_listed"
        ],
    ),
    Mutant(
        "a list does not wait for the rebuild",
        KEYSET,
        "persistence/store.py",
        "        await self._engine.whole_index()\n        return await self._read(\n"
        "            lambda connection: list_threads(",
        "        return await self._read(\n            lambda connection: list_threads(",
        [
            "tests/persistence/test_thread_list.py::"
            "test_a_list_asked_before_the_store_is_open_waits_for_the_rebuild"
        ],
    ),
    Mutant(
        "a start believes ends of rollouts that were not flushed",
        POWER,
        "persistence/writer.py",
        "            transact(connection, [distrust_unflushed()])\n",
        "",
        [
            "tests/persistence/test_unflushed_ends.py::"
            "test_what_a_power_cut_spoiled_is_not_believed_and_spoils_nothing_that_comes_after"
        ],
    ),
    Mutant(
        "the index does not remember which files have an end that was not flushed",
        POWER,
        "persistence/appender.py",
        "        indexer.state.unflushed = int(not batch.fsync)\n",
        "        indexer.state.unflushed = 0\n",
        [
            "tests/persistence/test_unflushed_ends.py::"
            "test_what_a_power_cut_spoiled_is_not_believed_and_spoils_nothing_that_comes_after"
        ],
    ),
    Mutant(
        "an end that was not flushed is read again and still not flushed",
        POWER,
        SCAN,
        "        state.unflushed = int(flush and not _flushed(descriptor))\n",
        "        state.unflushed = 0\n",
        [
            "tests/persistence/test_unflushed_ends.py::"
            "test_an_unflushed_end_is_flushed_before_it_is_believed_again"
        ],
    ),
    Mutant(
        "a commit of the database is not flushed",
        "§4: synchronous=FULL",
        DATABASE,
        '"PRAGMA synchronous=FULL"',
        '"PRAGMA synchronous=OFF"',
        ["tests/persistence/test_store_power_cut.py", "tests/end_to_end/test_queue_power_cut.py"],
    ),
    Mutant(
        "a file is moved before the intent is stored",
        MOVED,
        RELOCATION,
        "    transact(connection, [(intent, (each, action, now_ms)) for each in files])\n",
        "",
        [
            "tests/persistence/test_relocation.py::"
            "test_killed_at_any_step_the_next_start_shows_all_of_it_or_nothing"
        ],
    ),
    Mutant(
        "an archive overwrites an older file of the same name",
        MOVED,
        RELOCATION,
        "    if target.exists():\n        # Moving would destroy it.\n",
        "    if False:\n        # Moving would destroy it.\n",
        ["tests/persistence/test_relocation.py::test_an_archived_file_of_the_same_name_is_not_overwritten"],
    ),
    Mutant(
        "a delete begins with the rollout, and what was reverted comes back",
        MOVED,
        RELOCATION,
        "        for path in reversed(files):\n",
        "        for path in files:\n",
        [
            "tests/persistence/test_relocation.py::"
            "test_a_reverted_thread_that_cannot_be_deleted_does_not_fall_back_to_its_old_history"
        ],
    ),
    Mutant(
        "a deleted thread leaves its queue, goal and name",
        "thread/delete leaves nothing",
        RELOCATION,
        "            *forget_facts(thread_id),\n",
        "",
        ["tests/persistence/test_relocation.py::test_a_deleted_thread_leaves_nothing"],
    ),
    Mutant(
        "a fork gets its name before it is flushed",
        "docs/durability.md: a fork is complete and on the disk",
        "persistence/rollout_copy.py",
        "            sync(out.fileno())\n",
        "",
        ["tests/persistence/test_fork_and_revert.py::test_a_copy_is_on_the_disk_before_it_gets_its_name"],
    ),
    Mutant(
        "a damaged database is read from its beginning only",
        DAMAGE,
        SALVAGE,
        'for direction in ("ASC", "DESC"):',
        'for direction in ("ASC",):',
        [
            "tests/persistence/test_damaged_database.py::"
            "test_rows_before_and_behind_a_damaged_page_are_taken_over_and_the_loss_is_told"
        ],
    ),
    Mutant(
        "what could not be read of a damaged queue is not told of",
        DAMAGE,
        SALVAGE,
        "        found.whole = whole and stored == len(rows)\n",
        "",
        [
            "tests/persistence/test_damaged_database.py::"
            "test_rows_before_and_behind_a_damaged_page_are_taken_over_and_the_loss_is_told"
        ],
    ),
    Mutant(
        "a database is not looked at after a crash",
        DAMAGE,
        DATABASE,
        "    suspect = _mark(path).exists() or (wal.exists() and wal.stat().st_size > 0)\n",
        "    suspect = _mark(path).exists()\n",
        ["tests/persistence/test_store_failures.py::test_damage_out_of_sight_is_looked_for_after_a_crash"],
    ),
    Mutant(
        "damage that was met while running is forgotten",
        DAMAGE,
        DATABASE,
        "            _mark(path).touch(mode=0o600)\n",
        "            pass\n",
        [
            "tests/persistence/test_store_failures.py::"
            "test_damage_met_while_running_is_mended_by_the_next_start"
        ],
    ),
    Mutant(
        "a probe of the disk claims that it is well without writing",
        "docs/durability.md: the disk is probed with a file and a row",
        "persistence/health.py",
        """\
            write_all(descriptor, bytes(PROBE_BYTES))
            sync(descriptor)
""",
        """\
            pass
""",
        ["tests/simulation/test_bad_disk.py"],
    ),
    Mutant(
        "a probe of the disk claims that the database is well without writing a row",
        "docs/durability.md: the disk is probed with a file and a row",
        "persistence/health.py",
        "    writer.call(Job(operations=[pause(_NOBODY, True), pause(_NOBODY, False)]))\n",
        "",
        ["tests/simulation/test_bad_disk.py"],
    ),
    Mutant(
        "two daemons own one home",
        "§4: one process owns a home",
        "persistence/home.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        ["tests/persistence/test_home.py::test_a_home_has_one_owner_until_it_is_released"],
    ),
]
