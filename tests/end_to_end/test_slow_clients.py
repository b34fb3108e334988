"""A client that does not read costs the others nothing; one that asks too much is told so."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from spoold.testing.client_state import ClientState
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.every_message import user_text
from tests.support.raw_client import RawClient, connect_raw

MEGABYTES = int(os.environ.get("SPOOLD_TEST_MEGABYTES", "20"))
"""What the eight get together in one round; 200 for the full measure."""
REPORT = "SPOOLD_TEST_REPORT"
"""Environment variable: a file that gets the measured numbers."""
READERS = 8
ROUNDS, MOST_ROUNDS = 5, 15
"""A busy machine shows other ratios from round to round; what a client really costs, it costs in all."""
LEAST_RATIO = 0.8
DELTA = 1000
MESSAGE = 50 * DELTA
FIRST = 1_000_000
"""Id of the first request of a flood: no other number looks like it."""
OUTBOX = MEGABYTES * 1_000_000 // READERS // 3
"""Bytes that may wait: who reads nothing has more than twice that waiting long before the end."""
BOUNDS = ("-c", f"spoold.outbox_bytes={OUTBOX}")


def output(megabytes: int) -> str:
    """A script step: messages whose deltas, and then whole texts, make that many bytes for eight clients."""
    per_client = megabytes * 1_000_000 // READERS
    # Each text comes twice, in deltas and whole; around a delta there are about 250 bytes.
    count = max(1, per_client // (2 * MESSAGE + MESSAGE // DELTA * 250))
    return "many " + " ;; ".join([" ".join(["x" * (DELTA - 1)] * (MESSAGE // DELTA))] * count)


def memory_peak(pid: int) -> int:
    """The most memory a process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def write_report(report: dict[str, Any]) -> None:
    if (path := os.environ.get(REPORT)) is not None:
        Path(path).write_text(json.dumps(report))


class Round:
    """One thread, one turn, eight readers; how long it took and how many bytes came."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.seconds = 0.0
        self.bytes = 0

    async def run(self, text: str, slow: RawClient | None = None) -> None:
        daemon = self.daemon
        thread_id = (await daemon.client.call("thread/start", {}))["thread"]["id"]
        await daemon.client.call("thread/unsubscribe", {"threadId": thread_id})
        async with trio.open_nursery() as nursery:
            readers: list[RawClient] = []
            for number in range(READERS):
                readers.append(await nursery.start(self._reader, f"reader {number}", thread_id))
            if slow is not None:
                await slow.send({"id": 1, "method": "thread/resume", "params": {"threadId": thread_id}})
                await slow.until(b'"id":1')
            daemon.model.script(text)
            began = trio.current_time()
            await daemon.client.call("turn/start", {"threadId": thread_id, "input": user_text("go")})
            async with trio.open_nursery() as reading:
                for reader in readers:
                    reading.start_soon(reader.until, b'"method":"turn/completed"')
            self.seconds = trio.current_time() - began
            self.bytes = sum(len(reader.received) for reader in readers)
            for reader in readers:
                # The last message may not be whole yet; what comes after this answer is.
                await reader.send({"id": FIRST, "method": "thread/loaded/list", "params": {}})
                await reader.until(b'"id":%d' % FIRST)
            told = [bytes(reader.received[reader.received.index(b'"turn/started"') :]) for reader in readers]
            for number, reader in enumerate(readers):
                # Who got the same bytes as the first shows the same.
                if number and told[number] == told[0]:
                    continue
                state = ClientState(thread_id)
                for message in reader.messages():
                    if "method" in message:
                        state.message(message)
                (turn_id,) = state.turns
                assert state.turns[turn_id]["status"] == "completed"
                assert len(state.text(turn_id)) == len(text) - len("many ") - 4 * text.count(" ;; ")
            nursery.cancel_scope.cancel()

    async def _reader(self, name: str, thread_id: str, task_status: trio.TaskStatus[RawClient]) -> None:
        async with connect_raw(self.daemon.url, name) as client:
            await client.send({"id": 1, "method": "thread/resume", "params": {"threadId": thread_id}})
            await client.until(b'"id":1')
            task_status.started(client)
            await trio.sleep_forever()


async def test_one_client_that_reads_nothing_costs_the_eight_others_nothing(tmp_path: Path) -> None:
    text = output(MEGABYTES)
    async with open_daemon(tmp_path, arguments=BOUNDS, check_messages=False) as daemon:
        await Round(daemon).run(output(1))
        idle = memory_peak(daemon.process.pid)
        without, with_it = [], []
        ratio = 0.0
        for number in range(MOST_ROUNDS):
            if number >= ROUNDS and ratio >= LEAST_RATIO:
                break
            alone = Round(daemon)
            await alone.run(text)
            without.append(alone.bytes / alone.seconds)
            async with connect_raw(daemon.url, f"does-not-read-{number}", receive_buffer=4096) as slow:
                together = Round(daemon)
                await together.run(text, slow)
                with_it.append(together.bytes / together.seconds)
                await slow.to_the_end()
                assert slow.close_code() in (4008, None)
            assert f"does-not-read-{number}" in daemon.stderr
            ratio = statistics.median(with_it) / statistics.median(without)
        peak = memory_peak(daemon.process.pid)
        report = {
            "megabytes": together.bytes / 1e6, "ratio": ratio, "idle MiB": idle, "peak MiB": peak,
            "MB/s without": [speed / 1e6 for speed in without],
            "MB/s with": [speed / 1e6 for speed in with_it],
        }  # fmt: skip
        write_report(report)
        assert together.bytes > 0.9e6 * MEGABYTES, report
        assert ratio >= LEAST_RATIO, report
        # What may wait for a client, what the output itself is, and room for the allocator.
        assert peak - idle < 64 + MEGABYTES, report


async def test_a_client_that_does_not_read_and_then_does_is_told_4008(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, arguments=BOUNDS, check_messages=False) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.call("thread/unsubscribe", {"threadId": thread_id})
        async with connect_raw(daemon.url, "sleeper", receive_buffer=4096) as slow:
            await slow.send({"id": 1, "method": "thread/resume", "params": {"threadId": thread_id}})
            await slow.until(b'"id":1')
            daemon.model.script(output(3 * MEGABYTES))
            await client.call("turn/start", {"threadId": thread_id, "input": user_text("go")})
            while "sleeper" not in daemon.stderr:
                await client.call("thread/loaded/list", {})
            await slow.to_the_end()
            assert slow.close_code() == 4008
        await client.wait_for("thread/status/changed", lambda note: note["status"]["type"] == "idle")


async def test_every_request_of_a_flood_gets_exactly_one_answer(tmp_path: Path) -> None:
    bounds = ("-c", "spoold.requests_in_flight=16", "-c", "spoold.mailbox_length=8")
    async with open_daemon(tmp_path, arguments=bounds, check_messages=False) as daemon:
        thread_id = (await daemon.client.call("thread/start", {}))["thread"]["id"]
        await daemon.client.run_turn(thread_id, "say hello")
        about = {"threadId": thread_id}
        kinds = [
            ("thread/read", {**about, "includeTurns": True}), ("thread/list", {}), ("thread/loaded/list", {}),
            ("thread/turns/list", about), ("thread/resume", about), ("no/such/method", {}),
        ]  # fmt: skip
        async with connect_raw(daemon.url) as flood:
            requests = [
                {
                    "id": number,
                    "method": kinds[number % len(kinds)][0],
                    "params": kinds[number % len(kinds)][1],
                }
                for number in range(FIRST, FIRST + 2000)
            ]
            since = len(flood.received)
            async with trio.open_nursery() as sending:
                sending.start_soon(flood.send_many, requests)
                await flood.until(b'"id":100', len(requests), since=since)
            answers = [message for message in flood.messages() if message.get("id", 0) >= FIRST]
            assert Counter(message["id"] for message in answers) == Counter(range(FIRST, FIRST + 2000))
            codes = Counter(message["error"]["code"] for message in answers if "error" in message)
            assert codes[-32001] > 0
            assert set(codes) <= {-32001, -32600}
            assert sum(1 for message in answers if "result" in message) > 0
        assert (await daemon.client.run_turn(thread_id, "say well"))["status"] == "completed"
