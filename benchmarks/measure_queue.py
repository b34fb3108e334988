"""The queue: how fast it drains, and what a row costs however many wait.

Requests are in the reference's shape, which both programs take. A queue is filled while a turn waits for a
model that never answers. The interrupt of that turn pauses the queue (spoold is told to do it as the
reference does), ``thread/queue/start`` sets it going, and a row that makes the model wait again ends the
drain. So a long queue need not be drained to its end: every turn's request holds the whole conversation,
which would soon be all that is measured.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import trio

from benchmarks.measure_turns import must_have_completed
from benchmarks.processes import at_rest, cpu_seconds
from benchmarks.report import Row, flat, paired
from benchmarks.servers import STDIO, WEBSOCKET, Bench, Program, Server
from spoold.client import Client

SIZES = (100, 1_000, 10_000)

_PAUSE = '\n[queue]\non_interrupt = "pause"\n'
_HELD = "wait forever never said"


def _said(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "text_elements": []}]


@dataclass
class _Queue:
    """A thread in which a turn waits for the model, and the rows behind it.

    Attributes:
        ids: of the rows, in order.
        turn_id: the turn that waits; none while the queue is paused or drains.
    """

    server: Server
    client: Client
    thread_id: str
    ids: list[str] = field(default_factory=list)
    turn_id: str | None = None
    _added: int = 0

    async def hold(self) -> None:
        """Begin a turn that does not end."""
        params = {"threadId": self.thread_id, "input": _said(_HELD)}
        self.turn_id = (await self.client.call("turn/start", params))["turn"]["id"]

    async def add(self, count: int) -> None:
        """So many, one after the other."""
        for _ in range(count):
            self._added += 1
            name = f"{self.thread_id}-{self._added}"
            row = await self._call("add", input=_said("say ok"), clientUserMessageId=name)
            self.ids.append(row["queuedSubmission"]["id"])
            if self._added % 50 == 0:
                self.client.forget()

    async def update(self, row_ids: list[str], text: str = "say ok") -> None:
        """One after the other."""
        for row_id in row_ids:
            await self._call("update", queuedSubmissionId=row_id, input=_said(text))

    async def delete(self, row_ids: list[str]) -> None:
        """One after the other."""
        for row_id in row_ids:
            if not (await self._call("delete", queuedSubmissionId=row_id))["deleted"]:
                raise RuntimeError(f"row {row_id} was not there")
        gone = set(row_ids)
        self.ids = [each for each in self.ids if each not in gone]

    async def list_all(self) -> None:
        """Every page; the rows must be those that wait."""
        found: list[str] = []
        cursor = None
        while True:
            page = await self._call("list", limit=100, cursor=cursor)
            found += [row["id"] for row in page["data"]]
            cursor = page["nextCursor"]
            if cursor is None:
                break
        if found != self.ids:
            raise RuntimeError(f"{len(found)} rows are listed, {len(self.ids)} wait, or in another order")

    async def reorder(self, ids: list[str]) -> None:
        """All of them, in one request."""
        await self._call("reorder", queuedSubmissionIds=ids)
        self.ids = ids

    async def drain(self, count: int) -> float:
        """Let so many rows run: seconds until the last of them has ended. The row behind them holds."""
        if len(self.ids) > count:
            await self.update([self.ids[count]], _HELD)
        ended = {"threadId": self.thread_id, "turnId": self.turn_id}
        await self.client.call("turn/interrupt", ended)
        await self._next("turn/completed")
        await at_rest([self.server.pid])
        self.client.forget()
        began = trio.current_time()
        await self._call("start")
        for _ in range(count):
            must_have_completed(await self._next("turn/completed"))
        took = trio.current_time() - began
        held = len(self.ids) > count
        self.turn_id = (await self._next("turn/started"))["id"] if held else None
        del self.ids[: count + held]
        return took

    async def _call(self, method: str, **params: Any) -> Any:
        return await self.client.call(f"thread/queue/{method}", {"threadId": self.thread_id, **params})

    async def _next(self, method: str) -> Any:
        note = await self.client.wait_for(method, lambda note: note["threadId"] == self.thread_id)
        return note["params"]["turn"]


@asynccontextmanager
async def _connected(
    bench: Bench, program: Program, transport: str = WEBSOCKET
) -> AsyncIterator[tuple[Server, Client]]:
    home = bench.new_home(program)
    if program.name == "spoold":
        with (home / "config.toml").open("a") as config:
            config.write(_PAUSE)
    async with bench.connected(program, home, transport) as opened:
        yield opened


async def _new_queue(server: Server, client: Client, rows: int) -> _Queue:
    queue = _Queue(server, client, await server.new_thread(client))
    await queue.hold()
    await queue.add(rows)
    return queue


async def queued_turns(bench: Bench) -> list[Row]:
    """Rows that were added while a turn ran: from the start of the queue to the last one's end, by row."""
    rounds, size = (2, 10) if bench.quick else (6, 40)
    rows = []
    for transport in (WEBSOCKET, STDIO):
        took: dict[str, list[float]] = {program.name: [] for program in bench.programs}
        spent: dict[str, list[float]] = {program.name: [] for program in bench.programs}
        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(_connected(bench, program, transport))
                for program in bench.programs
            ]
            for number in range(rounds + 1):
                for server, client in opened:
                    queue = await _new_queue(server, client, size)
                    await at_rest(server.pid for server, _client in opened)
                    cpu = cpu_seconds(server.pid)
                    seconds = await queue.drain(size)
                    cpu = cpu_seconds(server.pid) - cpu
                    if number:  # the first round warms up
                        took[server.program.name].append(seconds / size)
                        spent[server.program.name].append(cpu / size)
        rows.append(paired(f"queued turn, {transport}", "ms", took, target=0.3, scale=1000))
        rows.append(paired("  CPU of the server for it", "ms", spent, scale=1000))
    return rows


async def long_queues(bench: Bench) -> list[Row]:
    """What a row costs in queues of 100, 1,000 and 10,000 rows of one daemon, taking turns.

    Of spoold alone: what is compared is the lengths. CPU time, which comes in hundredths of a second, is
    taken over all rounds together; of a quick run it says nothing.
    """
    rounds, size = (2, 10) if bench.quick else (8, 25)
    (program,) = [each for each in bench.programs if each.name == "spoold"]
    took: dict[str, dict[int, list[float]]] = {}
    spent: dict[str, dict[int, list[float]]] = {}
    async with _connected(bench, program) as (server, client):
        chance = random.Random(0)
        queues = {rows: await _new_queue(server, client, rows) for rows in SIZES}
        for number in range(rounds + 1):
            for rows, queue in queues.items():
                for name, (seconds, cpu) in (await _one_round(queue, size, chance)).items():
                    if number:  # the first round warms up
                        took.setdefault(name, {}).setdefault(rows, []).append(seconds)
                        spent.setdefault(name, {}).setdefault(rows, []).append(cpu)
    result = []
    for name, figures in took.items():
        cpu_of_all = {rows: [fmean(each)] for rows, each in spent[name].items()}
        result += flat(name, "ms", figures, scale=1000)
        compared = flat(f"  CPU of the server, {name}", "ms", cpu_of_all, scale=1000)[-1]
        if not bench.quick:
            result.append(replace(compared, target=None))
    return result


async def _one_round(queue: _Queue, size: int, chance: random.Random) -> dict[str, tuple[float, float]]:
    """Seconds and CPU seconds of the server, by row; the queue is as long behind it as before."""
    pid, rows = queue.server.pid, len(queue.ids)
    took: dict[str, tuple[float, float]] = {}

    async def timed(name: str, count: int, act: Callable[[], Awaitable[float | None]]) -> None:
        await at_rest([pid])
        cpu, began = cpu_seconds(pid), trio.current_time()
        seconds = await act() or trio.current_time() - began
        took[name] = (seconds / count, (cpu_seconds(pid) - cpu) / count)

    await timed("queue/add of a row", size, lambda: queue.add(size))
    changed = chance.sample(queue.ids, size)
    await timed("queue/update of a row", size, lambda: queue.update(changed))
    gone = chance.sample(queue.ids, size)
    await timed("queue/delete of a row", size, lambda: queue.delete(gone))
    await timed("queue/list of all, by row", rows, queue.list_all)
    shuffled = chance.sample(queue.ids, rows)
    await timed("queue/reorder of all, by row", rows, lambda: queue.reorder(shuffled))
    await timed("queued turn", size, lambda: queue.drain(size))
    await queue.add(size + 1)
    return took
