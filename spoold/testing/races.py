"""Races in simulated worlds: every schedule of one, up to a bound; see ``spoold.testing.systematic``.

    async def two_resumes(world: World, race: Race) -> None:
        ...                                  # as it always goes
        with race:
            one = alice.send("thread/resume", threadId=thread)
            two = bob.send("thread/resume", threadId=thread)
            await world.daemon.settled()     # every schedule of what this causes
        assert ...

    explored = explore(two_resumes, bound=2)

Starting a daemon costs more than most races. So many schedules are run in one world, one after another, and a
race must leave the world as it found it, but for files: nobody connected, no thread loaded. One that ends its
daemon asks for a world of its own (``per_world=1``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from spoold.testing.systematic import Frontier, RunQueue, Schedule, Steady, install
from spoold.testing.world import World


class Race:
    """One run of a race; as a context, its window.

    Attributes:
        schedule: what decides in the window.
        number: of this run in its world, for names that must differ.
        outcome: how the race went, if the scenario says it: ``Explored`` counts them.
    """

    def __init__(self, queue: RunQueue, schedule: Schedule, number: int) -> None:
        self.schedule = schedule
        self.number = number
        self.outcome = ""
        self._window = queue.deciding(schedule)

    def __enter__(self) -> None:
        """The window opens."""
        self._window.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It closes: from here on everything goes as it always goes."""
        self._window.__exit__(kind, error, trace)


Scenario = Callable[[World, Race], Awaitable[None]]


@dataclass(frozen=True)
class Explored:
    """What an enumeration has run.

    Attributes:
        complete: every schedule up to the bound was run.
        runs: how many, by how often a task was put off.
        longest: the most steps of one schedule at which a task could be put off.
        outcomes: how often the race went how.
    """

    complete: bool
    runs: list[int]
    longest: int
    outcomes: Counter[str]

    def __str__(self) -> str:
        """For people."""
        kinds = ", ".join(f"{count} with {cost} put off" for cost, count in enumerate(self.runs))
        end = "" if self.complete else ", cut off"
        ways = "".join(f"; {how}: {count}" for how, count in sorted(self.outcomes.items()) if how)
        return f"{sum(self.runs)} schedules ({kinds}) of up to {self.longest} steps{end}{ways}"


def explore(
    scenario: Scenario,
    bound: int,
    *,
    settings: Sequence[str] = (),
    config: str = "",
    per_world: int = 50,
    most: int = 100_000,
) -> Explored:
    """Run a race in every schedule in which at most ``bound`` times a task is put off.

    ``most``: give up after so many.

    Raises:
        Exception: what a run has raised, with a note that says how to replay it.
    """
    frontier = Frontier(bound)
    outcomes = Counter[str]()

    async def some(world: World) -> None:
        queue = install()
        for number in range(per_world):
            if sum(frontier.runs) >= most or (schedule := frontier.next()) is None:
                return
            race = Race(queue, schedule, number)
            await _run(scenario, world, race)
            frontier.ran(schedule)
            outcomes[race.outcome] += 1

    while not frontier.complete and sum(frontier.runs) < most:
        World(0, settings=settings, config=config, chance=Steady()).run(some)
    return Explored(frontier.complete, frontier.runs, frontier.longest, outcomes)


def replay(
    scenario: Scenario, schedule: Sequence[int], *, settings: Sequence[str] = (), config: str = ""
) -> World:
    """Run a race once, in a world of its own, in the schedule that a failure has named.

    Raises:
        Exception: what it raised.
    """

    async def once(world: World) -> None:
        await _run(scenario, world, Race(install(), Schedule(schedule), 0))

    world = World(0, settings=settings, config=config, chance=Steady())
    world.run(once)
    return world


async def _run(scenario: Scenario, world: World, race: Race) -> None:
    # So that the first run in a world finds a daemon as the others do: all of it is there.
    await world.daemon.settled()
    try:
        await scenario(world, race)
        race.schedule.check()
    except BaseException as failure:
        if race.schedule.diverged is not None:
            failure.add_note(f"the run diverged: {race.schedule.diverged}")
        failure.add_note(f"replay with schedule={race.schedule}")
        failure.add_note(f"in this schedule: {race.schedule.told()}")
        raise
