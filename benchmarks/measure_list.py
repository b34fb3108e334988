"""``thread/list`` over many stored threads."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import trio

from benchmarks.generate import write_threads
from benchmarks.processes import at_rest
from benchmarks.report import Row, paired
from benchmarks.servers import STDIO, WEBSOCKET, Bench
from spoold.client import Client, Json

_PAGE: Json = {"limit": 25, "sortKey": "updated_at"}
_INDEXING_DEADLINE = 600.0
_TARGETS = {10_000: 0.2}


async def thread_list(bench: Bench) -> list[Row]:
    """The first page by ``updated_at`` at 1,000 and at 10,000 stored threads, once both have indexed them."""
    rows = []
    for count in (1_000, 10_000):
        homes = {program.name: bench.new_home(program) for program in bench.programs}
        for home in homes.values():
            write_threads(home, count)
        for transport in (WEBSOCKET, STDIO):
            took = await _pages(bench, homes, count, transport)
            name = f"thread/list p50 of {count:,}, {transport}"
            rows.append(paired(name, "ms", took, target=_TARGETS.get(count), scale=1000))
    return rows


async def _pages(bench: Bench, homes: dict[str, Path], count: int, transport: str) -> dict[str, list[float]]:
    rounds, size = (3, 5) if bench.quick else (10, 10)
    took: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    pages: dict[str, list[str]] = {}
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(bench.connected(program, homes[program.name], transport))
            for program in bench.programs
        ]
        for server, client in opened:
            await _indexed(server.program.name, client, count)
        for number in range(rounds + 1):
            for server, client in opened:
                await at_rest(server.pid for server, _client in opened)
                times = []
                for _ in range(size):
                    began = trio.current_time()
                    page = await client.call("thread/list", _PAGE)
                    times.append(trio.current_time() - began)
                pages[server.program.name] = [thread["id"] for thread in page["data"]]
                if number:
                    took[server.program.name].append(median(times))
    if len({tuple(page) for page in pages.values()}) != 1:
        raise RuntimeError(f"the two list different pages: {pages}")
    return took


async def _indexed(name: str, client: Client, count: int) -> None:
    with trio.fail_after(_INDEXING_DEADLINE):
        while True:
            found = await _count(client)
            if found == count:
                return
            if found > count:
                raise RuntimeError(f"{name} lists {found} of {count} threads")
            await trio.sleep(0.5)


async def _count(client: Client) -> int:
    """How many threads a client sees that turns every page."""
    seen: set[str] = set()
    cursor = None
    while True:
        page = await client.call("thread/list", {**_PAGE, "limit": 100, "cursor": cursor})
        seen.update(thread["id"] for thread in page["data"])
        cursor = page["nextCursor"]
        if cursor is None:
            return len(seen)
