"""Cold start and ``thread/start``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median

import trio

from benchmarks.processes import at_rest
from benchmarks.report import Row, paired
from benchmarks.servers import STDIO, WEBSOCKET, Bench


async def cold_start(bench: Bench) -> list[Row]:
    """Process start to the initialize result over stdio, on a home that was used before and on a new one."""
    rounds = 5 if bench.quick else 15
    first: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    used: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    homes = {program.name: bench.new_home(program) for program in bench.programs}
    for program in bench.programs:
        # Once unmeasured: the files come into the page cache, the bytecode to where it belongs.
        await bench.time_start(program, homes[program.name])
    for number in range(rounds):
        for program in bench.programs:
            used[program.name].append(await bench.time_start(program, homes[program.name]))
        if number < 5:
            for program in bench.programs:
                home = bench.new_home(program)
                first[program.name].append(await bench.time_start(program, home))
    return [
        paired("cold start to the initialize result", "ms", used, target=1.5, scale=1000),
        paired("  the same, first start in a new home", "ms", first, scale=1000),
    ]


async def thread_start(bench: Bench) -> list[Row]:
    """``thread/start`` sent to its result, one after the other on one connection."""
    rounds, size = (3, 10) if bench.quick else (8, 20)
    rows = []
    for transport in (WEBSOCKET, STDIO):
        took: dict[str, list[float]] = {program.name: [] for program in bench.programs}
        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(bench.connected(program, bench.new_home(program), transport))
                for program in bench.programs
            ]
            for number in range(rounds + 1):
                for server, client in opened:
                    await at_rest(server.pid for server, _client in opened)
                    times = []
                    for _ in range(size):
                        began = trio.current_time()
                        await server.new_thread(client)
                        times.append(trio.current_time() - began)
                    if number:  # the first round warms up
                        took[server.program.name].append(median(times))
        rows.append(paired(f"thread/start p50, {transport}", "ms", took, scale=1000))
    return rows
