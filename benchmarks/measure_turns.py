"""Turns: the round trip of one, many at a time, and one with very many deltas."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import trio

from benchmarks.processes import at_rest, cpu_seconds
from benchmarks.report import Row, paired, percentile
from benchmarks.servers import STDIO, WEBSOCKET, Bench, Server
from spoold.client import Client, Json

DELTAS = 20_000
THREADS = 32


async def timed_turn(client: Client, thread_id: str, text: str) -> float:
    """Seconds from sending ``turn/start`` to receiving ``turn/completed``."""
    client.forget()
    began = trio.current_time()
    turn = await client.run_turn(thread_id, text)
    took = trio.current_time() - began
    must_have_completed(turn)
    return took


def must_have_completed(turn: Json) -> None:
    """Refuse to measure turns that fail."""
    if turn["status"] != "completed":
        raise RuntimeError(f"a turn ended as {turn['status']}: {turn.get('error')}")


async def round_trip(bench: Bench) -> list[Row]:
    """Rounds of one thread each; the first turn of a thread, which makes its file, is a figure of its own.

    On a websocket the reference waits for acknowledgements that the kernel delays by 40 ms; stdio shows its
    own speed.
    """
    return [row for transport in (WEBSOCKET, STDIO) for row in await _round_trip(bench, transport)]


async def _round_trip(bench: Bench, transport: str) -> list[Row]:
    rounds, size = (3, 8) if bench.quick else (12, 20)
    first: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    middle: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    every: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(bench.connected(program, bench.new_home(program), transport))
            for program in bench.programs
        ]
        for number in range(rounds + 1):
            for server, client in opened:
                name = server.program.name
                thread_id = await server.new_thread(client)
                await at_rest(server.pid for server, _client in opened)
                opening = await timed_turn(client, thread_id, "say ok")
                times = [await timed_turn(client, thread_id, "say ok") for _ in range(size)]
                if number:  # the first round warms up
                    first[name].append(opening)
                    middle[name].append(median(times))
                    every[name].extend(times)
    slowest = {name: [percentile(times, 99)] for name, times in every.items()}
    return [
        paired(f"turn round trip p50, {transport}", "ms", middle, target=0.35, scale=1000),
        paired(f"turn round trip p99, {transport}", "ms", slowest, scale=1000),
        paired(f"  first turn of a thread p50, {transport}", "ms", first, scale=1000),
    ]


async def many_threads(bench: Bench) -> list[Row]:
    """32 threads on one websocket, each starting its next turn when the one before has completed."""
    rounds, turns = (1, 3) if bench.quick else (5, 6)
    rate: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    spent: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(bench.connected(program, bench.new_home(program)))
            for program in bench.programs
        ]
        for number in range(rounds + 1):
            for server, client in opened:
                threads = [await server.new_thread(client) for _ in range(THREADS)]
                count = turns if number else 1
                await at_rest(server.pid for server, _client in opened)
                cpu, began = cpu_seconds(server.pid), trio.current_time()
                await turns_on_all(client, threads, count)
                took, cpu = trio.current_time() - began, cpu_seconds(server.pid) - cpu
                if number:
                    rate[server.program.name].append(THREADS * count / took)
                    spent[server.program.name].append(cpu / (THREADS * count))
    return [
        paired(f"turns/s over {THREADS} threads", "/s", rate, more_is_better=True),
        paired("CPU of the server for one such turn", "ms", spent, scale=1000),
    ]


async def turns_on_all(client: Client, threads: list[str], count: int, text: str = "say ok") -> None:
    """Run ``count`` turns on each of the threads, all threads at the same time."""
    ended = {thread_id: trio.Event() for thread_id in threads}
    client.forget()

    async def listen() -> None:
        async for note in client.messages():
            if note["method"] == "turn/completed":
                must_have_completed(note["params"]["turn"])
                ended[note["params"]["threadId"]].set()
        raise RuntimeError("the server hung up")

    async def drive(thread_id: str) -> None:
        parts: list[dict[str, Any]] = [{"type": "text", "text": text, "text_elements": []}]
        for _ in range(count):
            ended[thread_id] = trio.Event()
            await client.call("turn/start", {"threadId": thread_id, "input": parts})
            await ended[thread_id].wait()

    async with trio.open_nursery() as listening:
        listening.start_soon(listen)
        async with trio.open_nursery() as driving:
            for thread_id in threads:
                driving.start_soon(drive, thread_id)
        listening.cancel_scope.cancel()


async def burst(bench: Bench) -> list[Row]:
    """A turn whose answer comes in 20,000 deltas as fast as the model can send them.

    Client, model and server share the machine; where it has few cores the time is theirs together, and the
    CPU time of the server says more.
    """
    rounds = 1 if bench.quick else 3
    took: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    spent: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(bench.connected(program, bench.new_home(program)))
            for program in bench.programs
        ]
        for number in range(rounds + 1):
            for server, client in opened:
                thread_id = await server.new_thread(client)
                await at_rest(server.pid for server, _client in opened)
                deltas = DELTAS if number else DELTAS // 10
                seconds, cpu = await one_burst(server, client, thread_id, deltas)
                if number:
                    took[server.program.name].append(seconds)
                    spent[server.program.name].append(cpu)
    return [
        paired(f"a turn of {DELTAS:,} deltas", "s", took),
        paired("  CPU of the server for it", "s", spent),
    ]


async def one_burst(server: Server, client: Client, thread_id: str, deltas: int) -> tuple[float, float]:
    """Seconds, and CPU seconds of the server, of a turn with so many deltas; all of them must have come."""
    cpu = cpu_seconds(server.pid)
    seconds = await timed_turn(client, thread_id, f"burst {deltas} 8")
    received = sum(
        len(note["params"]["delta"]) for note in client.seen if note["method"] == "item/agentMessage/delta"
    )
    if received != deltas * 8:
        raise RuntimeError(f"{server.program.name}: {received} of {deltas * 8} characters came in deltas")
    return seconds, cpu_seconds(server.pid) - cpu
