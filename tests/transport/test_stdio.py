from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transport.clients import pipe_pair
from tests.transport.fakes import INITIALIZE, FakeDaemon, gateway
from transport.connection import serve_connection
from transport.framing import LineFramer
from transport.stdio import StdioChannel


@dataclass
class Pipes:
    """A client on pipes."""

    daemon: FakeDaemon
    to_server: trio.lowlevel.FdStream
    from_server: trio.lowlevel.FdStream
    ended: trio.Event
    framer: LineFramer

    async def message(self) -> dict[str, Any]:
        lines: list[Any] = []
        with trio.fail_after(30):
            while not lines:
                lines = self.framer.feed(bytes(await self.from_server.receive_some()))
        assert len(lines) == 1
        return json.loads(lines[0])

    async def call(self, method: str, params: Any) -> dict[str, Any]:
        await self.to_server.send_all(
            json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n"
        )
        return await self.message()


@asynccontextmanager
async def served(make: Callable[[int, int], StdioChannel] = StdioChannel) -> AsyncIterator[Pipes]:
    server_in, client_out, client_in, server_out = pipe_pair()
    daemon, shared = gateway()
    ended = trio.Event()

    async def run() -> None:
        await serve_connection(make(server_in, server_out), shared)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        to_server, from_server = trio.lowlevel.FdStream(client_out), trio.lowlevel.FdStream(client_in)
        async with to_server, from_server:
            pipes = Pipes(daemon, to_server, from_server, ended, LineFramer())
            assert "result" in await pipes.call("initialize", INITIALIZE)
            yield pipes
        with trio.fail_after(30):
            await ended.wait()


async def test_requests_and_answers_travel_as_lines() -> None:
    async with served() as pipes:
        await pipes.to_server.send_all(b"\r\n\n")
        assert (await pipes.call("thread/loaded/list", {}))["result"] == {"method": "thread/loaded/list"}


async def test_a_line_over_128_mebibytes_is_told_and_skipped_without_being_held() -> None:
    async with served() as pipes:
        chunk = b"x" * (1 << 20)
        started = time.perf_counter()
        for _ in range(160):
            await pipes.to_server.send_all(chunk)
        error = (await pipes.message())["error"]
        assert error["code"] == -32700
        assert "134217728 bytes" in error["message"]
        await pipes.to_server.send_all(b"\n")
        assert "result" in await pipes.call("thread/loaded/list", {})
        assert time.perf_counter() - started < 20


async def test_a_last_line_without_newline_counts_and_is_answered_after_the_end_of_input() -> None:
    async with served() as pipes:
        await pipes.to_server.send_all(b'{"id":2,"method":"thread/loaded/list","params":{}}')
        await pipes.to_server.aclose()
        assert (await pipes.message())["id"] == 2
        with trio.fail_after(30):
            assert await pipes.from_server.receive_some() == b""
            await pipes.ended.wait()
        assert len(pipes.daemon.gone) == 1


async def test_a_client_that_closes_its_reading_end_is_gone() -> None:
    async with served() as pipes:
        await pipes.from_server.aclose()
        request = b'{"id":2,"method":"thread/loaded/list","params":{}}\n'
        with trio.fail_after(30):
            await pipes.to_server.send_all(request)
            await pipes.ended.wait()
        assert len(pipes.daemon.gone) == 1


async def test_regular_files_are_read_and_written_too(tmp_path: Path) -> None:
    requests = [
        {"id": 1, "method": "initialize", "params": INITIALIZE},
        {"id": 2, "method": "thread/loaded/list"},
    ]
    (tmp_path / "in").write_text("".join(json.dumps(request) + "\n" for request in requests))
    in_fd = os.open(tmp_path / "in", os.O_RDONLY)
    out_fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    with trio.fail_after(30):
        await serve_connection(StdioChannel(in_fd, out_fd), gateway()[1])
    answers = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert all("result" in answer for answer in answers)


@pytest.mark.parametrize("blocking", [True, False])
async def test_the_mode_of_a_shared_pipe_is_put_back(blocking: bool) -> None:
    server_in, client_out, client_in, server_out = pipe_pair()
    shared = os.dup(server_in)
    os.set_blocking(shared, blocking)
    os.close(client_out)
    with trio.fail_after(30):
        await serve_connection(StdioChannel(server_in, server_out), gateway()[1])
    assert os.get_blocking(shared) is blocking
    os.close(shared)
    os.close(client_in)


PROGRAM = """
import sys, trio, os, subprocess
from pathlib import Path
from tests.transport.fakes import gateway
from transport.listen import open_listeners, parse_listen

async def main():
    daemon, shared = gateway()
    listeners = await open_listeners([parse_listen("stdio://")], Path("/nowhere"))
    async with trio.open_nursery() as nursery:
        await nursery.start(listeners.serve, shared)
        await daemon.until(lambda: daemon.ready)
        print("a stray print", flush=True)
        child = "import sys; print('child read', repr(sys.stdin.read()))"
        subprocess.run([sys.executable, "-c", child], check=True)
        await daemon.until(lambda: daemon.shutdowns)
        listeners.close()
    print("after the end")

trio.run(main)
"""


def test_the_end_of_input_ends_the_process_and_stray_output_stays_out_of_the_protocol() -> None:
    requests = [
        {"id": 1, "method": "initialize", "params": INITIALIZE},
        {"id": 2, "method": "thread/loaded/list"},
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    *answers, last = done.stdout.splitlines()
    assert [json.loads(answer)["id"] for answer in answers] == [1, 2]
    assert last == "after the end"
    assert "a stray print" in done.stderr
    assert "child read ''" in done.stderr
