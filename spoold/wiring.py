"""The composition root: builds the rooms from the options, joins them, runs them, and takes them down.

The order of the end is the order of the promise: refuse new work; let running turns finish within the grace
period (a second signal ends it); interrupt what still runs; say goodbye to the clients; flush the store. Each
stage has a deadline, so nothing can keep the daemon alive.

A daemon that serves only the standard streams belongs to the program that started it: when that leaves, or a
signal comes, there is nobody left to finish turns for, and they are interrupted at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import trio

from actors.catalogue import Catalogue
from actors.supervisor import Supervisor
from persistence.config import Config, ConfigError
from persistence.home import Home, HomeError
from persistence.store import Store
from spoold.daemon import Daemon
from spoold.options import DaemonOptions, OptionError, StartError
from spoold.system_runtime import SystemRuntime
from spoold.turn_runner import RunnerFactory
from spoold.websocket_auth import authenticator_from
from transport.connection import Gateway, Limits
from transport.listen import Listen, ListenError, Listeners, open_listeners, parse_listen
from transport.methods import METHODS

log = logging.getLogger(__name__)

STOP_DEADLINE = 10.0
"""Seconds for interrupting turns, and again for saying goodbye and flushing, after the grace period."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What must be there before anything is listened on."""

    home: Home
    config: Config
    listens: Sequence[Listen]
    server_cwd: str


def run_daemon(options: DaemonOptions) -> int:
    """Run until the client on the standard streams leaves or a signal ends it. Returns the exit code.

    Raises:
        OptionError: an option's value is impossible.
        StartError: the daemon cannot start.
    """
    foundation = _lay(options)
    claim = None
    try:
        claim = foundation.home.claim()
        code = trio.run(_main, options, foundation)
    except (HomeError, ListenError) as error:
        raise StartError(str(error)) from None
    finally:
        if claim is not None:
            claim.release()
    if code < 0:
        # A program that a signal ended dies of that signal, so that its parent can tell.
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _lay(options: DaemonOptions) -> Foundation:
    try:
        listens = [parse_listen(url) for url in options.listens]
    except ValueError as error:
        raise OptionError(str(error)) from None
    try:
        home = Home.open(options.home)
        config = Config.load(home, options.overrides)
        return Foundation(home, config, listens, os.getcwd())  # noqa: PTH109 - paths travel as text
    except (HomeError, ConfigError) as error:
        raise StartError(str(error)) from None
    except FileNotFoundError:
        raise StartError("the working directory does not exist any more") from None


async def _main(options: DaemonOptions, foundation: Foundation) -> int:
    runtime, home, config = SystemRuntime(), foundation.home, foundation.config
    authenticator = authenticator_from(options.ws_auth, runtime)
    listeners = await open_listeners(foundation.listens, home.root, authenticator)

    store = Store(home, runtime)
    runners = RunnerFactory(config, runtime)
    supervisor = Supervisor(runtime, store, config, runners.new, foundation.server_cwd, home)
    daemon = Daemon(home.root, runtime, config, supervisor, Catalogue(store, supervisor))
    bounds = config.limits
    gateway = Gateway(
        daemon,
        METHODS,
        Limits(outbox_bytes=bounds.outbox_bytes, in_flight=bounds.requests_in_flight),
    )
    served = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await nursery.start(supervisor.run)
            nursery.start_soon(_serve, listeners, gateway, served)
            # Not before signals are received: whoever reads this line may send one.
            _announce(listeners, config)
            code = await _until_the_end(daemon, listeners, signals, bounds.shutdown_grace_secs)
            with trio.move_on_after(STOP_DEADLINE):
                await supervisor.stop()
            listeners.close()
            with trio.move_on_after(STOP_DEADLINE):
                await served.wait()
                await runners.aclose()
            nursery.cancel_scope.cancel()
    return code


def _announce(listeners: Listeners, config: Config) -> None:
    for address in listeners.addresses:
        if address != "stdio://":
            print(f"spoold listens on {address}", file=sys.stderr, flush=True)
    for warning in config.warnings:
        log.warning("%s", warning)


async def _serve(listeners: Listeners, gateway: Gateway, served: trio.Event) -> None:
    await listeners.serve(gateway)
    served.set()


async def _until_the_end(
    daemon: Daemon, listeners: Listeners, signals: AsyncIterator[int], grace: float
) -> int:
    """Serve until something ends it, then let running turns finish where somebody may still want them.

    Returns:
        the exit code; negative: die of that signal.
    """
    alone = listeners.addresses == ["stdio://"]
    number = await _first(signals, daemon.shutdown_requested if alone else None)
    if alone:
        return -signal.SIGINT if number == signal.SIGINT else 0
    supervisor = daemon.supervisor
    supervisor.begin_drain()
    if supervisor.running_turns():
        log.warning("shutting down: waiting for %d running turns", supervisor.running_turns())
        with trio.move_on_after(grace):
            await _race(supervisor.drained, lambda: _next(signals))
    return 0


async def _first(signals: AsyncIterator[int], event: trio.Event | None) -> int | None:
    """Wait for a signal (its number) or the event (None)."""
    number: int | None = None

    async def listen() -> None:
        nonlocal number
        number = await _next(signals)

    await _race(listen, event.wait if event is not None else trio.sleep_forever)
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
