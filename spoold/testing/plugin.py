"""A pytest plugin for those who write clients: ``pytest -p spoold.testing.plugin``, or ``pytest_plugins``.

An async test that uses one of these fixtures runs in a simulated world, once for each of several seeds:

* ``simulated_daemon``: the daemon, started (``spoold.testing.SimulatedDaemon``);
* ``scripted_model``: the model that its turns use (``spoold.testing.InMemoryModel``);
* ``client``: a client, connected (``spoold.testing.SimulatedClient``);
* ``world``: all of it, and the seed (``spoold.testing.World``).

``@pytest.mark.world(seeds=20, settings=["key=value"])`` says how many and how the daemon is configured;
``seeds=[3, 4]`` says which. ``--world-seeds N`` gives every test N seeds, ``--world-seed N`` only the seed N:
so a failure is replayed. No other plugin is needed to run these tests, and other tests are not touched.
Fixtures that are built on these must not be async: the world begins with the test.

A test fails, too, where the daemon has logged an error with a traceback, which is a bug as a rule; one that
provokes it says ``@pytest.mark.world(complaints=True)``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from spoold.testing.client import SimulatedClient
    from spoold.testing.scripted_model import InMemoryModel
    from spoold.testing.world import SimulatedDaemon, World

SEEDS = 3
"""Seeds of a test that does not say how many."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; see the module docstring."""
    group = parser.getgroup("simulated worlds")
    group.addoption("--world-seeds", type=int, metavar="N", help="run tests in simulated worlds with N seeds")
    group.addoption("--world-seed", type=int, metavar="SEED", help="run them with this seed only")


def pytest_configure(config: pytest.Config) -> None:
    """The marker; see the module docstring."""
    said = "world(seeds, settings, complaints): in how many simulated worlds a test runs, and in what kind"
    config.addinivalue_line("markers", said)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run for each seed."""
    if "world_seed" in metafunc.fixturenames:
        option = metafunc.config.getoption
        one, count = option("--world-seed", None), option("--world-seeds", None)
        if one is not None:
            seeds: Sequence[int] = [one]
        elif count:
            seeds = range(count)
        else:
            try:
                seeds = _wanted(metafunc.definition).which()
            except TypeError:
                seeds = [0]  # it will say so itself, and the others run
        metafunc.parametrize("world_seed", seeds, ids=lambda seed: f"seed={seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Async tests become sync ones before a plugin for async tests can see them."""
    for item in items:
        # Another project may have a fixture named `world` of its own.
        if not isinstance(item, pytest.Function) or "world_seed" not in item.fixturenames:
            continue
        if inspect.iscoroutinefunction(item.obj):
            item.obj = _in_its_world(item, item.obj)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What cannot work fails with a reason."""
    if isinstance(item, pytest.Function) and "world_seed" in item.fixturenames:
        try:
            _wanted(item).which()
        except TypeError as error:
            pytest.fail(f"@pytest.mark.world: {error}", pytrace=False)
        for name in _async_fixtures(item):
            why = "its world begins with the test. Make it a function that the test awaits"
            pytest.fail(f"the fixture {name!r} cannot be async: {why}", pytrace=False)


@dataclass(frozen=True, slots=True)
class _World:
    """What a test asks for."""

    seeds: int | Sequence[int] = SEEDS
    settings: Sequence[str] = ()
    complaints: bool = False

    def which(self) -> Sequence[int]:
        """The seeds.

        Raises:
            TypeError: they are none.
        """
        seeds = range(self.seeds) if isinstance(self.seeds, int) else list(self.seeds)
        if not all(isinstance(seed, int) for seed in seeds):
            raise TypeError(f"seeds are a number of seeds or a list of them, not {self.seeds!r}")
        return seeds


def _wanted(node: pytest.Item | Any) -> _World:
    marker = node.get_closest_marker("world")
    return _World() if marker is None else _World(*marker.args, **marker.kwargs)


def _async_fixtures(item: pytest.Function) -> Iterator[str]:
    """The names of those that are built on the world."""
    fixtures = item._fixtureinfo.name2fixturedefs
    built, count = {"world"}, 0
    while len(built) > count:
        count = len(built)
        built |= {name for name, found in fixtures.items() if built.intersection(found[-1].argnames)}
    for name in sorted(built & fixtures.keys()):
        made_by = fixtures[name][-1].func
        if inspect.iscoroutinefunction(made_by) or inspect.isasyncgenfunction(made_by):
            yield name


def _in_its_world(item: pytest.Function, test: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        from spoold.testing.client import SimulatedClient
        from spoold.testing.world import World

        world, client = item.funcargs["world"], item.funcargs.get("client")
        assert isinstance(world, World)

        async def scenario(world: World) -> None:
            # A test may have a fixture of this name of its own.
            if isinstance(client, SimulatedClient) and client.of(world):
                await client.connect()
            await test(*args, **kwargs)

        try:
            world.run(scenario)
            if world.complaints and not _wanted(item).complaints:
                raise AssertionError(
                    "the daemon has logged what should not happen:\n" + "\n".join(world.complaints)
                )
        except BaseException as error:
            error.add_note(f"replay with: pytest --world-seed {world.seed} '{item.nodeid}'")
            raise

    return run


@pytest.fixture
def world(request: pytest.FixtureRequest, world_seed: int) -> Iterator[World]:
    """The simulated world; the test runs in it."""
    from spoold.testing.world import World

    made = World(world_seed, settings=_wanted(request.node).settings)
    yield made
    made.close()


@pytest.fixture
def simulated_daemon(world: World) -> SimulatedDaemon:
    """The daemon of the world, started."""
    return world.daemon


@pytest.fixture
def scripted_model(world: World) -> InMemoryModel:
    """The model of the world."""
    return world.model


@pytest.fixture
def client(world: World) -> SimulatedClient:
    """A client of the daemon, connected."""
    from spoold.testing.client import SimulatedClient

    return SimulatedClient(world.daemon, "client")
