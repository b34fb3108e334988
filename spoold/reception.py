"""The start of a daemon: its door opens before the rooms behind it are ready.

Whoever starts a daemon on its standard streams waits for the answer to ``initialize``. Most of a start is
importing code, and most of that code has no part in this answer. So the daemon starts in two steps. First the
configuration is read and the listeners are bound: what can go wrong goes wrong here, before anything is
answered. Clients are greeted; what they send after their handshake waits. Then the rest is imported and built
(``spoold.wiring``), on the loop's own thread: nobody could be served meanwhile anyway, and no two threads
import at once.

So this page, and what it imports, is what the first answer needs and no more.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio

from persistence.config import Config, ConfigError
from persistence.home import Home, HomeError
from protocol.late_imports import one_import_at_a_time
from protocol.runtime import Runtime
from spoold.options import DaemonOptions, StartError
from spoold.ownership import Succession
from spoold.system_runtime import SystemRuntime, allow_open_files
from spoold.version import __version__
from transport.connection import Gateway, Limits
from transport.handshake import GREETING
from transport.listen import Listen, ListenError, Listeners, open_listeners

if TYPE_CHECKING:
    from actors.peer import Peer
    from transport.daemon import Daemon
    from transport.http_front import Authenticator

log = logging.getLogger(__name__)

HEAD_START = 0.05
"""Seconds in which the client on the standard streams may greet before the rest is imported."""
TO_SEND = 0.001
"""Seconds for its answer to leave the process."""


class Greeter:
    """Stands in for the daemon while there is only the handshake. See ``transport.daemon.Daemon``.

    Attributes:
        home: the home folder, absolute.
        runtime: clock, ids, randomness.
        greeted: set when a client's handshake has succeeded.
    """

    version = __version__

    def __init__(self, home: Path, runtime: Runtime) -> None:
        self.home = home
        self.runtime = runtime
        self.greeted = trio.Event()
        self._peers: list[Peer] = []
        self._shutdown: str | None = None

    def peer_ready(self, peer: Peer) -> None:
        """The client will be introduced to the daemon."""
        self._peers.append(peer)
        self.greeted.set()

    def peer_gone(self, peer: Peer) -> None:
        """The daemon will not hear of the client."""
        self._peers.remove(peer)

    def request_shutdown(self, reason: str) -> None:
        """The client that started us has left before it was served."""
        self._shutdown = reason

    def introduce(self, daemon: Daemon) -> None:
        """Tell the daemon what has happened before it was there."""
        for peer in self._peers:
            daemon.peer_ready(peer)
        if self._shutdown is not None:
            daemon.request_shutdown(self._shutdown)


@dataclass(slots=True)
class Door:
    """What the rooms are built behind, and what was found out before it was opened.

    Attributes:
        home: owned by this process.
        config: the home's, with the options over it.
        server_cwd: the working directory at the start.
        runtime: clock, ids, randomness.
        greeter: in the daemon's place.
        gateway: not opened yet.
        listeners: being served.
        succession: how the home came to be owned by this process.
        first_request_id: no request to a client may have a lower id.
        all_left: set when the listeners are closed and the last connection has ended.
    """

    home: Home
    config: Config
    server_cwd: str
    runtime: Runtime
    greeter: Greeter
    gateway: Gateway
    listeners: Listeners
    succession: Succession
    first_request_id: int
    all_left: trio.Event = field(default_factory=trio.Event)


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
        allow_open_files()
        runtime = SystemRuntime()
        listeners = await open_listeners(
            listens, home.root, _authenticator(options, runtime), succession.stdio
        )
    except (HomeError, ConfigError, ListenError) as error:
        raise StartError(str(error)) from None
    except FileNotFoundError:
        raise StartError("the working directory does not exist any more") from None
    predecessor_died = _open_control(listeners, home) or succession.of is not None

    bounds = config.limits
    greeter = Greeter(home.root, runtime)
    gateway = Gateway(
        cast("Daemon", greeter),  # all of a daemon that GREETING needs
        GREETING,
        Limits(outbox_bytes=bounds.outbox_bytes, in_flight=bounds.requests_in_flight),
    )
    door = Door(
        home,
        config,
        server_cwd,
        runtime,
        greeter,
        gateway,
        listeners,
        succession,
        # A client that was asked by the predecessor may answer late: nothing of ours may have that id.
        first_request_id=runtime.now_ms() if predecessor_died else 0,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, door)
        if listeners.stdio:
            with trio.move_on_after(HEAD_START):
                await greeter.greeted.wait()
                await trio.sleep(TO_SEND)
        with one_import_at_a_time:
            from spoold.wiring import run_rooms
        # What is there now stays: the collector need not look at it again and again.
        gc.freeze()
        gc.enable()
        code = await run_rooms(door, signals)
        nursery.cancel_scope.cancel()
    return code


def _authenticator(options: DaemonOptions, runtime: Runtime) -> Authenticator | None:
    if options.ws_auth.mode is None:
        return None
    with one_import_at_a_time:
        from spoold.websocket_auth import authenticator_from
    return authenticator_from(options.ws_auth, runtime)


def _open_control(listeners: Listeners, home: Home) -> bool:
    """Open the door for other processes; whether a predecessor that died has left its own.

    Without it everything works but sharing, so that it cannot be opened is no reason not to start.
    """
    try:
        return listeners.open_control(home.root).replaced
    except ListenError as error:
        log.warning("no other process can share %s: %s", home.root, error)
        return False


async def _serve(door: Door) -> None:
    await door.listeners.serve(door.gateway)
    door.all_left.set()
