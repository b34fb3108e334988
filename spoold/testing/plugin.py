"""A pytest plugin for those who write clients: ``pytest -p spoold.testing.plugin``, or ``pytest_plugins``.

An async test that uses one of these fixtures runs in a simulated world, once for each of several seeds:

* ``simulated_daemon``: the daemon, started (``spoold.testing.SimulatedDaemon``);
* ``scripted_model``: the model that its turns use (``spoold.testing.InMemoryModel``);
* ``client``: a client, connected (``spoold.testing.SimulatedClient``);
* ``world``: all of it, and the seed (``spoold.testing.World``).

``@pytest.mark.world(seeds=20, settings=["key=value"])`` says how many and how the daemon is configured.
``--world-seeds N`` gives every test N seeds, ``--world-seed N`` only the seed N: so a failure is replayed. No
other plugin is needed to run these tests, and other tests are not touched. Fixtures that are built on these
must not be async: the world begins with the test.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
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
    config.addinivalue_line("markers", "world(seeds, settings): in how many simulated worlds a test runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run for each seed."""
    if "world_seed" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("world")
        asked = {} if marker is None else marker.kwargs
        option = metafunc.config.getoption
        one, count = option("--world-seed", None), option("--world-seeds", None)
        seeds = [one] if one is not None else range(count or asked.get("seeds", SEEDS))
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
        except BaseException as error:
            error.add_note(f"replay with: pytest --world-seed {world.seed} '{item.nodeid}'")
            raise

    return run


@pytest.fixture
def world(request: pytest.FixtureRequest, world_seed: int) -> Iterator[World]:
    """The simulated world; the test runs in it."""
    from spoold.testing.world import World

    marker = request.node.get_closest_marker("world")
    made = World(world_seed, settings=() if marker is None else marker.kwargs.get("settings", ()))
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
