"""docs/deviations.md tells the truth: its tests exist, and what only it says holds."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.daemon_process import open_daemon

ROOT = Path(__file__).parents[2]


def test_every_row_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    rows = [
        line
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith(("| ---", "| subject"))
    ]
    assert len(rows) > 10
    for row in rows:
        last = row.rstrip(" |").rpartition("| ")[2]
        if last == "the same":
            continue
        named = re.fullmatch(r"`([\w/]+\.py)::(test_\w+)`", last)
        assert named, f"this row names no test: {row}"
        source = (ROOT / "tests" / named[1]).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {named[2]}\(", source, re.MULTILINE), f"no such test: {named[0]}"


async def test_a_loaded_thread_without_a_message_can_be_resumed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        started = await daemon.client.call("thread/start", {})
        async with daemon.connect("another") as another:
            resumed = await another.call("thread/resume", {"threadId": started["thread"]["id"]})
        assert resumed["thread"]["turns"] == []
        assert resumed["thread"]["status"] == {"type": "idle"}
        assert not list(daemon.home.rglob("rollout-*")), "a thread without a message touches no disk"


async def test_the_legacy_history_mode_is_answered_with_what_is_done(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        started = await daemon.client.call("thread/start", {"historyMode": "legacy"})
        assert started["thread"]["historyMode"] == "paginated"
        await daemon.client.run_turn(started["thread"]["id"], "say hello")
        [rollout] = daemon.home.rglob("rollout-*.jsonl")
        assert '"history_mode":"paginated"' in rollout.read_text().partition("\n")[0]
