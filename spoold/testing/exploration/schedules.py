"""Schedules: made from a seed, run against the reference model, made shorter when they fail.

A schedule is a tuple of steps; the world that it runs in has a seed of its own. Each schedule is made of a
random subset of the kinds of steps (swarm testing): what is left out makes room for long runs of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import trio

from actors.disk_watch import PROBE_SECONDS
from spoold.client import ConnectionLost, RpcFailed
from spoold.testing.exploration.comparison import check_queues, check_reached, compare_all
from spoold.testing.exploration.coverage import Coverage
from spoold.testing.exploration.rules import rule
from spoold.testing.exploration.scene import UNLOAD_SECONDS, Scene
from spoold.testing.exploration.step import Step
from spoold.testing.exploration.steps import ACTS
from spoold.testing.runtime import Chance
from spoold.testing.world import World
from transport.outbox import MERGE_ABOVE

Schedule = tuple[Step, ...]

ALWAYS = ("connect", "start_thread", "turn", "switches", "settle")
WEIGHTS = {
    "turn": 9, "add": 8, "switches": 12, "settle": 7, "jump": 3, "rush": 3, "release": 7, "answer": 8,
    "resume": 6, "connect": 5, "compare": 2, "restart": 4, "crash": 1, "crash_at": 3, "stop": 1,
    "start_thread": 3, "steer": 4, "look": 3, "reconnect": 4, "burst": 1, "nonsense": 1,
    "branch": 1, "mark": 1,
}  # fmt: skip
GONE = (ConnectionLost, ConnectionRefusedError, RpcFailed, trio.ClosedResourceError)
"""What a client meets when the daemon goes away in the middle of a step."""
SETTINGS = (
    "spoold.outbox_bytes=200000",
    "spoold.runtime_idle_secs=30",
    "spoold.requests_in_flight=40",
    f"thread_unload_delay_secs={UNLOAD_SECONDS}",
)
LAST_ROUNDS = 60
STEP_LIMIT = 3000
"""Seconds of the world: a step that takes longer waits for what never comes."""


def make_schedule(seed: int, length: int = 60) -> Schedule:
    """The schedule of a seed."""
    chance = Chance(f"schedule {seed}")
    kinds = [*ALWAYS, *(name for name in ACTS if name not in ALWAYS and chance.random() < 0.6)]
    weights = [WEIGHTS.get(name, 2) for name in kinds]
    begin: list[Step] = [("connect", client, 0, 0) for client in range(chance.randint(1, 3))]
    begin.append(("start_thread", 0, chance.randrange(2), 0))
    begin.append(("settle", 0, 0, 0))
    names = chance.choices(kinds, weights, k=chance.randint(length // 4, length))

    def number() -> int:
        return chance.randrange(1000)

    return (*begin, *((name, number(), number(), number()) for name in names))


def run_schedule(seed: int, schedule: Iterable[Step], coverage: Coverage | None = None) -> str:
    """Run one; the trace.

    Nothing happens in the world while ``schedule`` thinks about the next step.

    Raises:
        Exception: a rule is broken, or something failed; with a note that says how to replay it.
    """
    seen = Coverage() if coverage is None else coverage
    taken: list[Step] = []

    async def scenario(world: World) -> None:
        scene = Scene(world)
        before = ""
        for step in schedule:
            taken.append(step)
            kind = step[0]
            seen.step(scene, before, kind)
            world.trace.note("step", f"{step}")
            await take(scene, step)
            before = kind
        await end(scene)
        seen.ended(scene)

    seen.schedules += 1
    try:
        world = World(seed, settings=settings_of(seed), merge_above=merges_above(seed))
        return world.run(scenario).text()
    except BaseException as error:
        whole = schedule if isinstance(schedule, tuple) else tuple(taken)
        error.add_note(f"seed={seed} schedule={whole}\nreplay with: {replayed_by(seed, whole)}")
        raise


def pauses(seed: int) -> bool:
    """Whether an interrupted turn pauses the queue in this seed's world."""
    return seed % 3 == 0


def settings_of(seed: int) -> tuple[str, ...]:
    """The configuration of a seed's world."""
    return (*SETTINGS, "queue.on_interrupt=pause") if pauses(seed) else SETTINGS


def merges_above(seed: int) -> int:
    """From how many waiting bytes on deltas are merged in this seed's world: in each second one, from few."""
    return 600 if seed % 2 else MERGE_ABOVE


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
        if daemon.running and not daemon.dying and not scene.stopping:
            break
        await daemon.ended()
    for client in scene.clients:
        client.go_on_reading()
        client.slow = False
    quiet = 0
    for _ in range(LAST_ROUNDS):
        for number in range(len(scene.clients)):
            await take(scene, ("connect", number, 0, 0))
        for client in scene.clients:
            for thread_id in scene.facts:
                if thread_id not in client.attached and client.connected:
                    client.send("thread/resume", threadId=thread_id)
        if pauses(scene.world.seed):
            for thread in range(len(scene.facts)):
                await take(scene, ("go_on", 0, thread, 0))
        while scene.gates:
            await take(scene, ("release", 0, 0, 0))
        for gate in scene.world.model.holding():
            scene.world.model.release(gate)  # asked again, by a turn of a goal
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
    scene.told_of_bugs()
    scene.healed()
    check_reached(scene)
    await check_queues(scene)
    await compare_all(scene)
    await scene.bury()
    scene.told_of_bugs()


def active(scene: Scene) -> list[str]:
    """Threads in which a turn runs."""
    client = scene.clients[0]
    return sorted(
        thread_id
        for thread_id in client.attached
        if (client.threads[thread_id].status or {}).get("type") == "active"
    )


def written(schedule: Schedule) -> str:
    """A schedule as text: ``connect, start_thread 0 1, ...``; zeros at the end of a step are left out."""
    return ", ".join(" ".join(map(str, _without_zeros(step))) for step in schedule)


def _without_zeros(step: Step) -> tuple[str | int, ...]:
    short: tuple[str | int, ...] = step
    while short[-1] == 0:
        short = short[:-1]
    return short


def read(text: str) -> Schedule:
    """A schedule that was ``written``.

    Raises:
        ValueError: it is none.
    """
    steps: list[Step] = []
    for part in text.split(","):
        name, *numbers = part.split()
        if name not in ACTS or len(numbers) > 3:
            raise ValueError(f"no such step: {part.strip()}")
        a, b, c = (*map(int, numbers), 0, 0, 0)[:3]
        steps.append((name, a, b, c))
    return tuple(steps)


def replayed_by(seed: int, schedule: Schedule) -> str:
    """The command that runs a schedule again."""
    given = "" if schedule == make_schedule(seed) else f' --schedule "{written(schedule)}"'
    return f"spoold-sim replay {seed}{given}"


def shorten(seed: int, schedule: Schedule, tries: int = 400) -> Schedule:
    """Leave out steps, and then make numbers zero, as long as the schedule fails in the same way."""
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
    for place in range(len(schedule)):
        for number in (1, 2, 3):
            name, *numbers = schedule[place]
            if not numbers[number - 1] or tries <= 0:
                continue
            numbers[number - 1] = 0
            a, b, c = numbers
            simpler = (*schedule[:place], (name, a, b, c), *schedule[place + 1 :])
            tries -= 1
            if failure_of(seed, simpler) == kind:
                schedule = simpler
    return schedule


def failure_of(seed: int, schedule: Sequence[Step]) -> Any:
    """How it fails, in a word; None where it does not."""
    try:
        run_schedule(seed, tuple(schedule))
    except BaseException as error:
        return type(error), str(error).split(":")[0][:20]
    return None
