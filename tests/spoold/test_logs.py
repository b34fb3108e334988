"""The log goes to stderr, never blocks whoever logs, and says when it had to drop something."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spoold.logs import BackgroundHandler

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, os
from spoold.logs import log_to_stderr
log_to_stderr(os.environ)
log = logging.getLogger("room.file")
log.debug("quiet")
log.info("detail")
log.warning("loud %s", "\\udc80")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed", extra={"thread_id": "t1"})
"""


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_warnings_and_tracebacks_reach_stderr_before_the_process_ends_and_stdout_stays_clean() -> None:
    result = run()
    assert result.stdout == ""
    assert "WARNING room.file: loud \\udc80" in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "detail" not in result.stderr


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", 4), ("INFO", 3), ("error", 1), ("off", 0), ("nonsense", 2)]
)
def test_the_level_decides_what_is_shown_and_an_unknown_one_counts_as_warning(level: str, shown: int) -> None:
    assert run(SPOOLD_LOG=level).stderr.count(" room.file: ") == shown


def test_json_lines_carry_level_logger_and_the_fields_that_were_given() -> None:
    records = [json.loads(line) for line in run(SPOOLD_LOG_FORMAT="json").stderr.splitlines()]
    assert [(record["level"], record["logger"]) for record in records] == [
        ("warning", "room.file"),
        ("error", "room.file"),
    ]
    assert records[1]["thread_id"] == "t1"
    assert "ZeroDivisionError" in records[1]["exception"]


def test_a_log_that_nobody_reads_blocks_nobody_and_the_loss_is_told() -> None:
    reading, writing = os.pipe()
    handler = BackgroundHandler(writing)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for number in range(25_000):
        logger.warning("record %05d %s", number, "x" * 100)
    received = b""
    while b"were dropped" not in received:
        # Reading makes room; the next record that finds it tells what was lost.
        received += os.read(reading, 1 << 20)
        logger.warning("more")
    assert b"record 00000" in received

    def drain() -> None:
        while os.read(reading, 1 << 20):
            pass

    drainer = threading.Thread(target=drain)
    drainer.start()
    handler.close()
    os.close(writing)
    drainer.join()
    os.close(reading)


def test_a_closed_stderr_is_survived() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = BackgroundHandler(writing)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("into the void")
    handler.close()
    os.close(writing)
