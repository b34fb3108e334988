"""The composition root: builds the rooms, joins them, runs them, and takes them down.

The order of the end is the order of the promise: refuse new work; let running turns finish within the grace
period (a second signal ends it); interrupt what still runs; say goodbye to the clients; flush the store. Each
stage has a deadline, so nothing can keep the daemon alive.

A daemon that serves only the standard streams belongs to the program that started it: when that leaves, or a
signal comes, there is nobody left to finish turns for, and they are interrupted at once. Unless others have
attached through the control socket meanwhile: it stays for them, and then for what they have left running.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import trio

from actors.catalogue import Catalogue
from actors.supervisor import Supervisor
from persistence.config import Config
from persistence.home import Home
from persistence.store import Store
from protocol.runtime import Runtime
from spoold.daemon import Daemon
from spoold.ownership import say
from spoold.reception import Door
from spoold.turn_runner import RunnerFactory
from transport.connection import Gateway
from transport.listen import Listeners
from transport.methods import METHODS

log = logging.getLogger(__name__)

LIBRARIES_IMPORT_THEM_UNASKED = (importlib.metadata, importlib.resources)
"""Imported here, before there are threads that might do it at once: see ``protocol.late_imports``."""

STOP_DEADLINE = 10.0
"""Seconds for interrupting turns, and again for saying goodbye and flushing, after the grace period."""


@dataclass(frozen=True, slots=True)
class Foundations:
    """What the rooms are built on. A simulated world builds them on ground that a test controls.

    Attributes:
        store: makes the persistence room.
        runners: makes what runs turns.
        say: tells the person who started the program.
    """

    store: Callable[[Home, Runtime], Store] = Store
    runners: Callable[[Config, Runtime], RunnerFactory] = RunnerFactory
    say: Callable[[str], None] = say


async def run_rooms(
    door: Door,
    signals: AsyncIterator[int],
    foundations: Foundations = Foundations(),
) -> int:
    """Build the rooms behind the door, let the clients in, serve them to the end, and close the door.

    Args:
        door: as ``spoold.reception`` has opened it.
        signals: SIGTERM and SIGINT.
        foundations: where the disk, the model and commands come from.

    Returns:
        the exit code; negative: die of that signal.
    """
    listeners, home, config, runtime = door.listeners, door.home, door.config, door.runtime
    store = foundations.store(home, runtime)
    runners = foundations.runners(config, runtime)
    supervisor = Supervisor(
        runtime, store, config, runners.new, door.server_cwd, home, first_request_id=door.first_request_id
    )
    daemon = Daemon(home.root, runtime, config, supervisor, Catalogue(store, supervisor), runners.terminals)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await nursery.start(supervisor.run)
        nursery.start_soon(runners.prepare)
        door.greeter.introduce(daemon)
        door.gateway.open(daemon, METHODS)
        _announce(door, foundations.say)
        code = await _until_the_end(
            daemon, listeners, door.gateway, signals, config.limits.shutdown_grace_secs
        )
        with trio.move_on_after(STOP_DEADLINE):
            await supervisor.stop()
        listeners.close()
        with trio.move_on_after(STOP_DEADLINE):
            await door.all_left.wait()
            await runners.aclose()
        nursery.cancel_scope.cancel()
    return code


def _announce(door: Door, say: Callable[[str], None]) -> None:
    if door.succession.of is None:
        say(f"owns {door.home.root}")
    else:
        say(f"owns {door.home.root} now: process {door.succession.of} has ended")
    for address in door.listeners.addresses:
        if address != "stdio://":
            say(f"listens on {address}")
    for warning in door.config.warnings:
        log.warning("%s", warning)


async def _until_the_end(
    daemon: Daemon, listeners: Listeners, gateway: Gateway, signals: AsyncIterator[int], grace: float
) -> int:
    """Serve until something ends it, then let running turns finish where somebody may still want them.

    Returns:
        the exit code; negative: die of that signal.
    """
    alone = listeners.addresses == ["stdio://"]
    supervisor = daemon.supervisor
    number = await _first(signals, daemon.shutdown_requested.wait if alone else trio.sleep_forever)
    if alone:
        if number is None and gateway.connections:
            say(f"stays for {len(gateway.connections)} attached clients; its own has left")
            number = await _first(signals, lambda: _deserted(gateway, supervisor, grace))
        return -signal.SIGINT if number == signal.SIGINT else 0
    supervisor.begin_drain()
    if supervisor.running_turns():
        log.warning("shutting down: waiting for %d running turns", supervisor.running_turns())
        with trio.move_on_after(grace):
            await _race(supervisor.drained, lambda: _next(signals))
    return 0


async def _deserted(gateway: Gateway, supervisor: Supervisor, grace: float) -> None:
    """Wait until nobody is connected and nothing runs, or nobody has come back for the grace period.

    New clients are welcome to the end: whom we turned away would wait for us to end.
    """
    while True:
        await gateway.deserted()
        with trio.move_on_after(grace):
            await supervisor.quiet()
        if not gateway.connections:
            return


async def _first(signals: AsyncIterator[int], other: Callable[[], Awaitable[None]]) -> int | None:
    """Wait for a signal (its number) or for the other thing (None)."""
    number: int | None = None

    async def listen() -> None:
        nonlocal number
        number = await _next(signals)

    await _race(listen, other)
    return number


async def _next(signals: AsyncIterator[int]) -> int:
    return await anext(signals)


async def _race(*contenders: Callable[[], object]) -> None:
    """Run all, until one has finished."""
    async with trio.open_nursery() as nursery:

        async def run(contender: Callable[[], object]) -> None:
            await contender()  # type: ignore[misc]
            nursery.cancel_scope.cancel()

        for contender in contenders:
            nursery.start_soon(run, contender)
