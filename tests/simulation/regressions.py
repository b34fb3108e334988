"""Schedules that a daemon of ours has failed, by what was wrong with it: a world's seed, and the steps."""

from __future__ import annotations

REGRESSIONS: dict[str, tuple[int, str]] = {
    "a queued row broke its thread when it was to run": (
        30020,
        "connect, start_thread 0 1, settle, add 9 2 7",
    ),
    "a turn that an archive had ended was recorded and not told when its file could not be moved": (
        383,
        "connect, start_thread, settle, turn 0 2 13, fault 3 3 1, put_away 0 2, settle",
    ),
    "a queued row was lost in a power cut with a thread whose file had begun with its name": (
        1729,
        "connect, start_thread 0 1, connect 1, name 1 4, switches 5, crash_at, add 9 5 2, settle",
    ),
    "a rollback had cut the history and was refused, and who was attached never heard of it": (
        89,
        "connect, start_thread, connect 1, fault 3 5 1, turn, turn, turn, settle, revert 1, add, "
        "switches 8, settle",
    ),
    "who came back by number to a thread that had been unloaded missed a number": (
        501321,
        "connect, connect 1, connect 2, start_thread, reconnect 1, turn 0 0 8, jump 4, reconnect 0 0 4, "
        "rush 4 3, burst",
    ),
    "who left between its snapshot and the usage behind it never saw the usage when it came back": (
        3003595,
        "connect, start_thread, compare, add 0 0 14, add, settle, fault 0 956, connect 92, connect, "
        "reconnect, burst 649, switches, add 0 0 15, add, jump 632, disconnect, resume 521, switches 623, "
        "switches 410, reconnect 956",
    ),
    "a crash while a daemon that ends made its last writes left them waiting for ever": (
        101246,
        "connect, connect 1, connect 2, start_thread, settle, add 4 0 11, switches 9, turn 0 3, "
        "stop_reading, release 383, stop_reading, slow_disk 2, go_on_reading 2, compare, name 0 1, "
        "release 687, turn 2 4 9, settle, connect 1, switches 5, settle, add 13 5 11, stop_reading "
        "2, add 12 4 7, stop_reading, stop, turn 2 2 1, turn 2 0 11, switches 9, disconnect 2 1, "
        "add 2 3, connect 1, switches 11, crash_at 3, switches 6, slow_disk, turn 0 0 7, "
        "stop_reading 2, go_on_reading, connect 2, connect, compare, switches 2, release 638, "
        "connect 1, delete 1 5 545, crash_at 5 4, add 7 2 7, turn 2 3 10, add 4 3 12, release 177, "
        "connect 1",
    ),
}
