"""Schedules: made from a seed, run against the reference model, made shorter when they fail.

A schedule is a tuple of steps; the world that it runs in has a seed of its own. Each schedule is made of a
random subset of the kinds of steps (swarm testing): what is left out makes room for long runs of the rest.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from actors.disk_watch import PROBE_SECONDS
from spoold.client import ConnectionLost, RpcFailed
from spoold.testing import World, simulate
from tests.simulation.reference_model import rule
from tests.simulation.scene import Scene
from tests.simulation.steps import ACTS, Step

Schedule = tuple[Step, ...]

ALWAYS = ("connect", "start_thread", "turn", "switches", "settle")
WEIGHTS = {
    "turn": 6, "add": 5, "switches": 10, "settle": 6, "jump": 3, "release": 5, "answer": 5, "resume": 5,
    "connect": 4, "compare": 2, "restart": 3, "crash": 1, "crash_at": 2, "stop": 1, "start_thread": 3,
}  # fmt: skip
GONE = (ConnectionLost, ConnectionRefusedError, RpcFailed, trio.ClosedResourceError)
"""What a client meets when the daemon goes away in the middle of a step."""
SETTINGS = ("spoold.outbox_bytes=200000", "spoold.runtime_idle_secs=30")
LAST_ROUNDS = 60
STEP_LIMIT = 3000
"""Seconds of the world: a step that takes longer waits for what never comes."""


@dataclass
class Coverage:
    """What a number of schedules have reached.

    Attributes:
        schedules: how many were run.
        states: what a thread was like when a step was taken.
        pairs: which step followed which.
        moves: which step was taken in which state.
        refusals: methods that were refused.
    """

    schedules: int = 0
    states: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """The numbers, and the corners that were never reached."""
        every = {(one, two) for one in ACTS for two in ACTS}
        unseen = sorted(every - self.pairs.keys())
        lines = [
            f"{self.schedules} schedules, {sum(self.states.values())} steps",
            f"{len(self.states)} states: "
            + ", ".join(f"{state} {count}" for state, count in self.states.most_common()),
            f"{len(self.pairs)} of {len(every)} pairs of steps, {len(self.moves)} pairs of state and step",
            "refused: " + ", ".join(f"{what} {count}" for what, count in self.refusals.most_common()),
        ]
        if unseen:
            lines.append("never one after the other: " + ", ".join(f"{a}-{b}" for a, b in unseen[:40]))
        return "\n".join(lines)


def make_schedule(seed: int, length: int = 60) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(f"schedule {seed}")
    kinds = [*ALWAYS, *(name for name in ACTS if name not in ALWAYS and chance.random() < 0.6)]
    weights = [WEIGHTS.get(name, 2) for name in kinds]
    begin: list[Step] = [("connect", client, 0, 0) for client in range(chance.randint(1, 3))]
    begin.append(("start_thread", 0, chance.randrange(2), 0))
    begin.append(("settle", 0, 0, 0))
    names = chance.choices(kinds, weights, k=chance.randint(length // 4, length))
    numbers = range(1000)
    return (*begin, *((name, *chance.choices(numbers, k=3)) for name in names))  # type: ignore[misc]


def run_schedule(seed: int, schedule: Schedule, coverage: Coverage | None = None) -> str:
    """Run one; the trace.

    Raises:
        Exception: a rule is broken, or something failed; with a note that says how to replay it.
    """
    seen = coverage or Coverage()

    async def scenario(world: World) -> None:
        scene = Scene(world)
        before = ""
        for step in schedule:
            kind = step[0]
            if before:
                seen.pairs[before, kind] += 1
            for state in states(scene):
                seen.states[state] += 1
                seen.moves[state, kind] += 1
            world.trace.note("step", f"{step}")
            await take(scene, step)
            before = kind
        await end(scene)
        for client in scene.clients:
            seen.refusals.update(text.partition(":")[0] for text in client.refusals)

    seen.schedules += 1
    try:
        return simulate(scenario, seed, settings=SETTINGS).text()
    except BaseException as error:
        error.add_note(f"replay with: python -m tests.simulation replay {seed}\nseed={seed} {schedule=}")
        raise


async def take(scene: Scene, step: Step) -> None:
    """One step, and the invariants after it."""
    try:
        with trio.fail_after(STEP_LIMIT):
            await ACTS[step[0]](scene, *step[1:])
    except GONE:
        scene.world.trace.note("step", "was in vain")
    await scene.bury()
    scene.told_of_bugs()


async def end(scene: Scene) -> None:
    """Heal everything, let everybody come, let everything end: then all show the same, and nothing waits."""
    daemon, disk = scene.daemon, scene.daemon.disk
    disk.heal()
    for _ in range(3):
        await take(scene, ("restart", 0, 0, 0))
        if daemon.running and not daemon.dying and not _draining(scene):
            break
        await daemon.ended()
    for number, client in enumerate(scene.clients):
        client.go_on_reading()
        client.slow = False
        await take(scene, ("connect", number, 0, 0))
    quiet = 0
    for _ in range(LAST_ROUNDS):
        for client in scene.clients:
            for thread_id in scene.facts:
                if thread_id not in client.attached and client.connected:
                    client.send("thread/resume", threadId=thread_id)
        while scene.gates:
            await take(scene, ("release", 0, 0, 0))
        # Long enough for a disk that has failed to be found well again: what had to wait then goes on.
        await trio.sleep(2 * PROBE_SECONDS)
        await daemon.settled()
        for thread in range(len(scene.facts)):
            await take(scene, ("answer", 0, thread, 0))
        await daemon.settled()
        quiet = 0 if active(scene) else quiet + 1
        if quiet == 2:
            break
    rule(not active(scene), f"turns that do not end: {active(scene)}")
    await check_queues(scene)
    await scene.compare()
    await scene.bury()
    scene.told_of_bugs()


async def check_queues(scene: Scene) -> None:
    """Rule 5: in an idle thread only a failed row keeps others waiting."""
    client = scene.clients[0]
    for thread_id in sorted(client.attached):
        rows = (await client.call("thread/queue/list", threadId=thread_id, limit=100))["data"]
        if rows:
            state = rows[0]["status"]["type"]
            rule(state == "failed", f"rule 5: {thread_id} is idle, and its first row is {state}")


def active(scene: Scene) -> list[str]:
    """Threads in which a turn runs."""
    client = scene.clients[0]
    return sorted(
        thread_id
        for thread_id in client.attached
        if (client.threads[thread_id].status or {}).get("type") == "active"
    )


def _draining(scene: Scene) -> bool:
    return scene.stopping


def states(scene: Scene) -> list[str]:
    """What each thread is like, in few words: what coverage counts."""
    daemon = scene.daemon
    if not daemon.running:
        return ["down"]
    if scene.stopping:
        return ["draining"]
    found = []
    for thread_id, facts in scene.facts.items():
        turn = next((c.stream(thread_id).turn for c in scene.clients if thread_id in c.attached), None)
        watchers = sum(thread_id in client.attached for client in scene.clients)
        asked = any(client.stream(thread_id).prompts for client in scene.clients)
        waiting = sum(each.added and not each.deleted for each in facts.queued.values())
        found.append(
            f"{'asking' if asked and turn else 'turn' if turn else 'idle'}"
            f"/{'queue' if waiting else 'empty'}/{'watched' if watchers else 'alone'}"
        )
    return found or ["no thread"]


def shorten(seed: int, schedule: Schedule, tries: int = 400) -> Schedule:
    """Leave out steps as long as the schedule fails in the same way."""
    kind = failure_of(seed, schedule)
    if kind is None:
        return schedule
    size = len(schedule) // 2
    while size >= 1 and tries > 0:
        start = 0
        while start < len(schedule) and tries > 0:
            shorter = schedule[:start] + schedule[start + size :]
            tries -= 1
            if failure_of(seed, shorter) == kind:
                schedule = shorter
            else:
                start += size
        size //= 2
    return schedule


def failure_of(seed: int, schedule: Sequence[Step]) -> Any:
    """How it fails, in a word; None where it does not."""
    try:
        run_schedule(seed, tuple(schedule))
    except BaseException as error:
        return type(error), str(error).split(":")[0][:20]
    return None
