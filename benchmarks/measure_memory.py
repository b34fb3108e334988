"""Resident memory: of a server that has only shaken hands, and of each thread that is loaded and fresh."""

from __future__ import annotations

from benchmarks.processes import settled_mib
from benchmarks.report import Row, paired
from benchmarks.servers import Bench

_WARM_UP = 10
"""Threads; what the first ones cost is code and caches, not threads."""


async def memory(bench: Bench) -> list[Row]:
    """Idle, and per fresh loaded thread over 200 of them."""
    rounds, threads = (1, 100) if bench.quick else (3, 200)
    idle: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    each: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    for _ in range(rounds):
        for program in bench.programs:
            async with bench.connected(program, bench.new_home(program)) as (server, client):
                idle[program.name].append(await settled_mib(server.pid))
                for _ in range(_WARM_UP):
                    await server.new_thread(client)
                before = await settled_mib(server.pid)
                for _ in range(threads):
                    await server.new_thread(client)
                each[program.name].append((await settled_mib(server.pid) - before) / threads)
    return [
        paired("resident memory, idle", "MiB", idle),
        paired("resident memory of a fresh loaded thread", "KiB", each, target=0.1, scale=1024),
    ]
