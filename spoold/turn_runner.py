"""Joins the rooms for the turns of one loaded thread: its model client, its tools, its terminals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import trio

from actors.turn_task import TurnRunner
from agent.events import TurnJob, TurnOutcome, TurnPort
from agent.model.events import ModelEvent, ModelRequest
from agent.model.retry import stream_with_retries
from agent.tools.exec_command import ExecCommand
from agent.tools.request_user_input import RequestUserInput
from agent.tools.sandbox import SandboxProbe
from agent.tools.terminals import Terminals, open_terminals
from agent.tools.toolset import ToolSet
from agent.turn import TurnControl, run_turn
from persistence.config import Config, ConfigError
from protocol.runtime import Runtime
from protocol.threads import TurnError
from spoold.model_clients import ModelClients

OpenTerminals = Callable[[Runtime], AbstractAsyncContextManager[Terminals]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What turns meet outside of the daemon, besides the model: a simulated world brings its own.

    Attributes:
        probe: whether the sandbox works.
        open_terminals: makes the owner of one thread's commands.
        environment: what commands inherit; None: the daemon's own.
    """

    probe: SandboxProbe = field(default_factory=SandboxProbe)
    open_terminals: OpenTerminals = open_terminals
    environment: Mapping[str, str] | None = None


class RunnerFactory:
    """Makes the runner of each loaded thread; what threads share (clients, the sandbox probe) is here."""

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        clients: ModelClients | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._runtime = runtime
        self._clients = clients or ModelClients(config, runtime)
        self._surroundings = surroundings or Surroundings()
        self.terminals: dict[str, Terminals] = {}
        """The commands of threads that have run any, by thread id; gone with the thread's runner."""
        self._wanted = trio.Event()

    async def prepare(self) -> None:
        """Once a thread is loaded, import in the background what its first turn will need."""
        await self._wanted.wait()
        await self._clients.prepare()

    def new(self) -> TurnRunner:
        """The runner of one loaded thread. Opens nothing yet."""
        self._wanted.set()
        return ThreadTurnRunner(self._clients, self._surroundings, self._runtime, self.terminals)

    async def aclose(self) -> None:
        """Close the model clients."""
        await self._clients.aclose()


class ThreadTurnRunner:
    """Implements ``actors.turn_task.TurnRunner``. Terminals are opened by the first turn."""

    def __init__(
        self,
        clients: ModelClients,
        surroundings: Surroundings,
        runtime: Runtime,
        register: dict[str, Terminals],
    ) -> None:
        self._clients = clients
        self._surroundings = surroundings
        self._runtime = runtime
        self._register = register
        self._nursery: trio.Nursery | None = None
        # Invariant: all three are there, or none.
        self._tools: ToolSet | None = None
        self._terminals: Terminals | None = None
        self._scope: trio.CancelScope | None = None

    def bind(self, nursery: trio.Nursery) -> None:
        """See ``TurnRunner.bind``."""
        self._nursery = nursery

    @property
    def busy(self) -> bool:
        """See ``TurnRunner.busy``: a command in the background."""
        return self._terminals is not None and bool(self._terminals.running)

    def drop(self) -> None:
        """See ``TurnRunner.drop``."""
        if self._scope is not None:
            self._scope.cancel()
        self._scope = self._terminals = self._tools = None

    async def run_turn(
        self, job: TurnJob, provider: str, port: TurnPort, control: TurnControl
    ) -> TurnOutcome:
        """See ``TurnRunner.run_turn``."""
        try:
            settings, client = self._clients.client(provider)
        except (ConfigError, ValueError) as error:
            return TurnOutcome(error=TurnError(message=str(error), codex_error_info="badRequest"))
        if self._tools is None:
            assert self._nursery is not None, "bind comes first"
            terminals: Terminals = await self._nursery.start(self._hold_terminals, job.thread_id)
            self._terminals = terminals
            around = self._surroundings
            command = ExecCommand(terminals, around.probe, around.environment)
            self._tools = ToolSet([command, RequestUserInput()])

        def model(
            request: Callable[[], ModelRequest], on_retry: Callable[[TurnError], Awaitable[None]]
        ) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
            return stream_with_retries(client, request, settings, self._runtime, on_retry)

        return await run_turn(job, port, model, self._tools, self._runtime, control)

    async def _hold_terminals(self, thread_id: str, task_status: trio.TaskStatus[Terminals]) -> None:
        with trio.CancelScope() as self._scope:
            async with self._surroundings.open_terminals(self._runtime) as terminals:
                self._register[thread_id] = terminals
                try:
                    task_status.started(terminals)
                    await trio.sleep_forever()
                finally:
                    if self._register.get(thread_id) is terminals:
                        del self._register[thread_id]
