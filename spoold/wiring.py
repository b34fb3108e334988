"""The composition root: builds the rooms from the options, joins them, runs them, and takes them down.

The order of the end is the order of the promise: refuse new work; let running turns finish within the grace
period (a second signal ends it); interrupt what still runs; say goodbye to the clients; flush the store. Each
stage has a deadline, so nothing can keep the daemon alive.

A daemon that serves only the standard streams belongs to the program that started it: when that leaves, or a
signal comes, there is nobody left to finish turns for, and they are interrupted at once. Unless others have
attached through the control socket meanwhile: it stays for them, and then for what they have left running.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from actors.catalogue import Catalogue
from actors.supervisor import Supervisor
from persistence.config import Config, ConfigError
from persistence.home import Home, HomeError
from persistence.store import Store
from spoold.daemon import Daemon
from spoold.options import DaemonOptions, StartError
from spoold.ownership import Succession, say
from spoold.system_runtime import SystemRuntime
from spoold.turn_runner import RunnerFactory
from spoold.websocket_auth import authenticator_from
from transport.connection import Gateway, Limits
from transport.listen import Listen, ListenError, Listeners, open_listeners
from transport.methods import METHODS

log = logging.getLogger(__name__)

STOP_DEADLINE = 10.0
"""Seconds for interrupting turns, and again for saying goodbye and flushing, after the grace period."""


async def run_daemon(
    options: DaemonOptions,
    home: Home,
    listens: Sequence[Listen],
    signals: AsyncIterator[int],
    succession: Succession,
) -> int:
    """Run until the client on the standard streams leaves or a signal ends it.

    Args:
        options: as the command line gave them.
        home: owned by this process.
        listens: what the options ask to listen on.
        signals: SIGTERM and SIGINT, received since before the call.
        succession: how the home came to be owned by this process.

    Returns:
        the exit code; negative: die of that signal.

    Raises:
        OptionError: an option's value is impossible.
        StartError: the daemon cannot start.
    """
    try:
        config = Config.load(home, options.overrides)
        server_cwd = os.getcwd()  # noqa: PTH109 - paths travel as text
        runtime = SystemRuntime()
        listeners = await open_listeners(
            listens, home.root, authenticator_from(options.ws_auth, runtime), succession.stdio
        )
    except (HomeError, ConfigError, ListenError) as error:
        raise StartError(str(error)) from None
    except FileNotFoundError:
        raise StartError("the working directory does not exist any more") from None
    predecessor_died = _open_control(listeners, home) or succession.of is not None

    store = Store(home, runtime)
    runners = RunnerFactory(config, runtime)
    supervisor = Supervisor(
        runtime,
        store,
        config,
        runners.new,
        server_cwd,
        home,
        # A client that was asked by the predecessor may answer late: nothing of ours may have that id.
        first_request_id=runtime.now_ms() if predecessor_died else 0,
    )
    daemon = Daemon(home.root, runtime, config, supervisor, Catalogue(store, supervisor), runners.terminals)
    bounds = config.limits
    gateway = Gateway(
        daemon,
        METHODS,
        Limits(outbox_bytes=bounds.outbox_bytes, in_flight=bounds.requests_in_flight),
    )
    served = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await nursery.start(supervisor.run)
        nursery.start_soon(_serve, listeners, gateway, served)
        _announce(home, listeners, config, succession)
        code = await _until_the_end(daemon, listeners, gateway, signals, bounds.shutdown_grace_secs)
        with trio.move_on_after(STOP_DEADLINE):
            await supervisor.stop()
        listeners.close()
        with trio.move_on_after(STOP_DEADLINE):
            await served.wait()
            await runners.aclose()
        nursery.cancel_scope.cancel()
    return code


def _open_control(listeners: Listeners, home: Home) -> bool:
    """Open the door for other processes; whether a predecessor that died has left its own.

    Without it everything works but sharing, so that it cannot be opened is no reason not to start.
    """
    try:
        return listeners.open_control(home.root).replaced
    except ListenError as error:
        log.warning("no other process can share %s: %s", home.root, error)
        return False


def _announce(home: Home, listeners: Listeners, config: Config, succession: Succession) -> None:
    if succession.of is None:
        say(f"owns {home.root}")
    else:
        say(f"owns {home.root} now: process {succession.of} has ended")
    for address in listeners.addresses:
        if address != "stdio://":
            say(f"listens on {address}")
    for warning in config.warnings:
        log.warning("%s", warning)


async def _serve(listeners: Listeners, gateway: Gateway, served: trio.Event) -> None:
    await listeners.serve(gateway)
    served.set()


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
