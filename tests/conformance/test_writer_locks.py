"""A home shared with the reference server: who has loaded a thread writes to it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistence.home import Home
from persistence.writer_locks import WriterLocks
from protocol.errors import ActiveWriter
from spoold.client import RpcFailed, connect_process
from tests.support.daemon_process import clean_environment, write_config

pytestmark = pytest.mark.conformance


async def test_the_reference_and_spoold_keep_each_other_from_a_thread_that_is_loaded(
    reference: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    write_config(home, "http://127.0.0.1:9/v1", {"approval_policy": "never"})
    locks = WriterLocks(Home.open(home))
    environment = clean_environment(tmp_path)
    async with connect_process([str(reference), "app-server"], env=environment) as (client, process):
        await client.initialize("tester")
        started = await client.call("thread/start", {"cwd": str(tmp_path)})
        thread_id = started["thread"]["id"]
        with pytest.raises(ActiveWriter) as refused:
            locks.claim(thread_id)
        # A thread that the reference can find, and has not loaded.
        await client.call("thread/name/set", {"threadId": thread_id, "name": "kept"})
        await client.call("thread/archive", {"threadId": thread_id})
        lock = locks.claim(thread_id)
        with pytest.raises(RpcFailed) as refused_by_reference:
            await client.call("thread/unarchive", {"threadId": thread_id})
        assert refused_by_reference.value.message.endswith(refused.value.message)
        lock.release()
        await client.call("thread/unarchive", {"threadId": thread_id})
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()
    locks.claim(thread_id).release()
