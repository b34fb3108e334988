"""A world in which a whole daemon lives and dies inside one test, and in which the seed decides everything.

    def test_something() -> None:
        async def scenario(world: World) -> None:
            alice = await world.client("alice")
            thread = await alice.start_thread()
            ...
        simulate(scenario, seed=7)

Real: the wiring, the supervisor, actors, connections, router, store, rollout files, SQLite, turns and tools.
Not real: the clock, ids and chance (``runtime``), the scheduler and threads (``schedule``), the network
(``channel``), the moments and failures of the disk (``disk``), the model (``scripted_model``) and processes
(``scripted_commands``).

Nothing of the program's own may wait for the real world, or the schedule would depend on it.
"""

from __future__ import annotations

import math
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import trio
import trio.testing

from persistence.config import Config
from persistence.fault_points import watched
from persistence.home import Home
from persistence.store import Store
from protocol.runtime import Runtime
from spoold.ownership import Succession
from spoold.reception import Door, Greeter
from spoold.testing.channel import MemoryChannel, MemoryListeners
from spoold.testing.client import SimulatedClient
from spoold.testing.disk import Crash, Disk, SimulatedWriter
from spoold.testing.logs import listening_to_logs
from spoold.testing.runtime import Chance, SeededRuntime
from spoold.testing.schedule import run_seeded
from spoold.testing.scripted_commands import SandboxWorks, ScriptedCommands
from spoold.testing.scripted_model import InMemoryModel, InMemoryModels
from spoold.testing.trace import Trace
from spoold.testing.wire import Wire
from spoold.turn_runner import RunnerFactory, Surroundings
from spoold.wiring import Foundations, run_rooms
from transport.connection import Gateway, Limits
from transport.daemon import Daemon
from transport.handshake import GREETING
from transport.outbox import MERGE_ABOVE

_SETTINGS = (
    "model_provider=scripted",
    "model=scripted",
    "model_providers.scripted.base_url=http://model.invalid/v1",
    "model_providers.scripted.request_max_retries=1",
    "model_providers.scripted.stream_max_retries=1",
)
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
"""Files in memory, where the machine has them: flushing costs nothing there."""

TIME_LIMIT = 100_000.0
"""Seconds of the world after which a scenario fails whose end, or whose daemon's, has not come."""


class SimulatedDaemon:
    """The daemon's process, as far as there is one.

    Attributes:
        home: its home folder; the same before and after a crash.
        disk: what goes wrong with it.
        trace: what happened.
        nursery: what outlives the daemon runs here.
        deaths: its crashes so far; True where the machine died with it.
        watching: open while the disk sees what it does. What it does when it dies is done to nobody's files.
    """

    nursery: trio.Nursery

    def __init__(self, world: World, settings: Sequence[str]) -> None:
        self.home = world.folder / "home"
        self.trace = world.trace
        self.deaths: list[bool] = []
        self.disk = Disk(world.chance, world.trace, self._die, world.folder / "graves")
        self.watching = ExitStack()
        self._world = world
        self._settings = (*_SETTINGS, *settings)
        self._scope: trio.CancelScope | None = None
        self._gateway: Gateway | None = None
        self._listeners: MemoryListeners | None = None
        self._writer: SimulatedWriter | None = None
        self._signals: trio.MemorySendChannel[int] | None = None
        self._channels: list[MemoryChannel] = []
        self._connections = 0
        self._ended = trio.Event()
        # The predecessor died: its clients may answer late.
        self._died = False

    @property
    def running(self) -> bool:
        """Whether it runs, or is on its way up or down."""
        return self._scope is not None

    @property
    def dying(self) -> bool:
        """Whether it has crashed: what still runs of it runs for nothing."""
        return self._scope is not None and self._scope.cancel_called

    async def start(self) -> None:
        """Start it on the home as it was left. On return clients can connect; it may not serve them yet."""
        assert not self.running, "it runs already"
        if self._died:
            shutil.rmtree(self.home)
            self._kept.rename(self.home)
        self._ended = trio.Event()
        self.watching.enter_context(watched(self.disk))
        self.trace.note("daemon", "starts")
        await self.nursery.start(self._run)

    async def stop(self) -> None:
        """End it as SIGTERM does, and wait for that."""
        self.ask_to_stop()
        await self.ended()

    def ask_to_stop(self) -> None:
        """SIGTERM; a second one skips the grace period."""
        assert self._signals is not None
        self.trace.note("daemon", "SIGTERM")
        self._signals.send_nowait(signal.SIGTERM)

    async def crash(self, *, power: bool = False) -> None:
        """Kill it where it stands, and wait until it is gone. ``power``: with the machine under it."""
        if self.running:
            self._die(power)
        await self.ended()

    async def ended(self) -> None:
        """Wait until it has ended or died."""
        await self._ended.wait()

    async def restart(self) -> None:
        """Start it again, after it has ended or died."""
        await self.ended()
        await self.start()

    async def settled(self) -> None:
        """Wait until everything has happened that happens without time passing, and the disk is quiet."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if self._writer is None or not self._writer.busy:
                return
            await trio.sleep(self.disk.slowness)

    def open_channel(self, name: str, sent: Callable[[bytes], None] | None = None) -> MemoryChannel:
        """A new connection.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        if self._listeners is None or not self.running:
            raise ConnectionRefusedError("no daemon runs")
        self._connections += 1
        channel = MemoryChannel(f"memory:{self._connections} {name}", sent=sent)
        self._listeners.take(channel)
        self._channels.append(channel)
        return channel

    def open_wire(self, name: str) -> Wire:
        """A new connection, as the transport of a client program of one's own.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        channel = self.open_channel(name, lambda data: self.trace.note(f"{name} <", data))
        return Wire(channel, lambda data: self.trace.note(f"{name} >", data))

    @property
    def _kept(self) -> Path:
        return self.home.with_name("home.kept")

    def _die(self, power: bool) -> None:
        assert self._scope is not None
        if self._scope.cancel_called:
            return
        self.deaths.append(power)
        self._died = True
        self.trace.note("daemon", "loses power" if power else "is killed")
        self.disk.keep(self.home, self._kept, power=power)
        self.watching.close()
        for channel in self._channels:
            channel.cut()
        if self._writer is not None:
            self._writer.dead = True
        self._scope.cancel()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        world, died = self._world, self._died
        self._died = False
        home = Home.open(self.home)
        claim = home.claim()
        config = Config.load(home, self._settings)
        signals, listens = trio.open_memory_channel[int](math.inf)
        self._signals, arriving = signals, listens
        self._listeners = listeners = MemoryListeners()
        greeter = Greeter(home.root, world.runtime)
        bounds = config.limits
        self._gateway = gateway = Gateway(
            cast("Daemon", greeter),
            GREETING,
            Limits(
                outbox_bytes=bounds.outbox_bytes,
                merge_above=world.merge_above,
                in_flight=bounds.requests_in_flight,
            ),
        )
        door = Door(
            home,
            config,
            str(world.cwd),
            world.runtime,
            greeter,
            gateway,
            listeners,
            Succession(claim, of=1 if died else None),
            first_request_id=world.runtime.now_ms() if died else 0,
        )
        foundations = Foundations(
            self._store, self._runners, lambda text: self.trace.note("daemon", f"says it {text}")
        )
        code: int | None = None

        async def serve() -> None:
            await listeners.serve(gateway)
            door.all_left.set()

        try:
            with trio.CancelScope() as self._scope:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(serve)
                        await trio.lowlevel.checkpoint()
                        task_status.started()
                        code = await run_rooms(door, arriving, foundations)
                        nursery.cancel_scope.cancel()
                except* Crash:
                    pass
        finally:
            claim.release()
            self.watching.close()
            self.trace.note("daemon", "is gone" if code is None else f"has ended: {code}")
            self._scope = self._listeners = None
            self._channels.clear()
            self._ended.set()

    def _store(self, home: Home, runtime: Runtime) -> Store:
        return Store(home, runtime, self._new_writer)

    def _new_writer(self, home: Home) -> SimulatedWriter:
        self._writer = SimulatedWriter(home, self.disk, self.nursery, self.trace)
        return self._writer

    def _runners(self, config: Config, runtime: Runtime) -> RunnerFactory:
        world = self._world
        surroundings = Surroundings(SandboxWorks(), world.commands.open_terminals, {})
        return RunnerFactory(config, runtime, InMemoryModels(config, runtime, world.model), surroundings)


class World:
    """One world: what there is besides the daemon.

    Made outside of Trio, so that fixtures can be built on it; ``run`` brings it to life, once.

    Args:
        seed: what decides everything.
        settings: ``key=value`` as on the command line.
        config: the home's ``config.toml``.
        chance: decides instead of the seed how long disk and worker calls take.
        merge_above: see ``transport.connection.Limits``. With a low one, deltas are merged for who is slow
            for a moment.

    Attributes:
        seed, merge_above: as given.
        chance: the world's own chance; a scenario may draw from it, too.
        runtime: clock and ids, over all crashes.
        folder: everything on disk is below it; removed at the end.
        cwd: where the daemon works, below ``folder``.
        trace: what happened.
        model: every model.
        commands: every command.
        daemon: the daemon; a scenario finds it started.
        complaints: what the daemon has logged as an error with a traceback: bugs, as a rule.
    """

    def __init__(
        self,
        seed: int,
        *,
        settings: Sequence[str] = (),
        config: str = "",
        chance: Chance | None = None,
        merge_above: int = MERGE_ABOVE,
    ) -> None:
        self._holder = tempfile.TemporaryDirectory(
            prefix="spoold-world-", dir=_MEMORY if _MEMORY.is_dir() else None
        )
        self.seed = seed
        self.merge_above = merge_above
        self.chance = chance or Chance(f"world {seed}")
        self._workers = chance
        self.runtime = SeededRuntime(seed)
        self.folder = Path(self._holder.name)
        self.cwd = self.folder / "work"
        self.trace = Trace({str(self.folder): "FOLDER"})
        self.model = InMemoryModel()
        self.commands = ScriptedCommands(self.trace.note)
        self.complaints: list[str] = []
        self.daemon = SimulatedDaemon(self, settings)
        self.cwd.mkdir()
        self.daemon.home.mkdir(mode=0o700)
        if config:
            (self.daemon.home / "config.toml").write_text(config, encoding="utf-8")

    async def client(self, name: str, **capabilities: object) -> SimulatedClient:
        """A new client, connected."""
        client = SimulatedClient(self.daemon, name)
        await client.connect(**capabilities)
        return client

    def run(self, scenario: Scenario) -> Trace:
        """Start the daemon, run the scenario, end the daemon, remove the folder.

        The scenario may leave the daemon running, stopped or dead. The same seed and scenario give the same
        trace, byte for byte.

        Raises:
            Exception: what the scenario raised, or the daemon; with a note that says how to replay it.
        """
        try:
            with self._holder:
                run_seeded(lambda: self._live(scenario), self.seed, workers=self._workers, seconds=TIME_LIMIT)
        except BaseException as failure:
            error, *others = _told_first(failure)
            error.add_note(f"replay with seed={self.seed}")
            if self.complaints:
                error.add_note("the daemon has logged: " + "; ".join(self.complaints))
            for other in others:
                error.add_note(f"beside it: {other!r}")
            error.add_note("the last events:\n" + self.trace.tail())
            raise error from error.__cause__
        return self.trace

    def _complain(self, text: str) -> None:
        if not self.daemon.dying:
            self.complaints.append(text)

    def close(self) -> None:
        """Remove the folder of a world that was never run."""
        self._holder.cleanup()

    async def _live(self, scenario: Scenario) -> None:
        daemon = self.daemon
        with daemon.watching, listening_to_logs(self.trace, self._complain):
            async with trio.open_nursery() as daemon.nursery:
                await daemon.start()
                await scenario(self)
                if daemon.running:
                    daemon.disk.heal()
                    await daemon.stop()
                daemon.nursery.cancel_scope.cancel()


Scenario = Callable[[World], Awaitable[None]]


def simulate(scenario: Scenario, seed: int, *, settings: Sequence[str] = (), config: str = "") -> Trace:
    """Run a scenario in a world of its own; see ``World`` and ``World.run``."""
    return World(seed, settings=settings, config=config).run(scenario)


def _told_first(failure: BaseException) -> list[BaseException]:
    """The failures in a group that a nursery made, a broken rule first.

    Where no rule is broken, a group of several is left as it is.
    """
    if not isinstance(failure, BaseExceptionGroup):
        return [failure]
    failures = [each for inner in failure.exceptions for each in _told_first(inner)]
    rule = next((each for each in failures if isinstance(each, AssertionError)), None)
    if rule is None and len(failures) > 1:
        return [failure]
    return sorted(failures, key=lambda each: each is not rule)
