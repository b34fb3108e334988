"""Commands that the model calls, without processes: what they do is written in the command itself.

``STEP; STEP``: ``echo TEXT`` writes a line, ``sleep SECONDS`` takes time, ``hold NAME`` waits until the test
releases NAME, ``exit CODE`` ends it. Every other step does nothing. A command that is interrupted, stopped or
timed out ends as a killed process does.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from agent.tools.sandbox import SandboxProbe, SandboxStatus
from agent.tools.terminals import MAX_RUNNING, TIMED_OUT, Terminal, Terminals, TooManyTerminals
from protocol.runtime import Runtime


class SandboxWorks(SandboxProbe):
    """A machine on which the sandbox works."""

    async def run(self) -> SandboxStatus:
        """It works."""
        await trio.lowlevel.checkpoint()
        return SandboxStatus(works=True)


class ScriptedCommands:
    """All commands of a world.

    Attributes:
        started: what was run, in order.
    """

    def __init__(self, trace: Callable[[str, str], None]) -> None:
        self.started: list[str] = []
        self._trace = trace
        self._released: dict[str, trio.Event] = {}

    def release(self, name: str) -> None:
        """Let commands that hold NAME go on; may come before they do."""
        self._released.setdefault(name, trio.Event()).set()

    @asynccontextmanager
    async def open_terminals(self, runtime: Runtime) -> AsyncIterator[Terminals]:
        """See ``agent.tools.terminals.open_terminals``."""
        async with trio.open_nursery() as nursery:
            terminals = _ScriptedTerminals(runtime, nursery, self)
            try:
                yield terminals
            finally:
                terminals._closing = True
                nursery.cancel_scope.cancel()

    async def run(self, terminal: Terminal) -> int:
        """Do what the command says; its exit code."""
        self.started.append(terminal.command)
        self._trace("command", terminal.command)
        for step in terminal.command.split(";"):
            word, _, rest = step.strip().partition(" ")
            await trio.lowlevel.checkpoint()
            match word:
                case "echo":
                    terminal._wrote(f"{rest}\n".encode())
                case "sleep":
                    await trio.sleep(float(rest))
                case "hold":
                    await self._released.setdefault(rest, trio.Event()).wait()
                case "exit":
                    return int(rest)
        return 0


class _ScriptedTerminals(Terminals):
    def __init__(self, runtime: Runtime, nursery: trio.Nursery, commands: ScriptedCommands) -> None:
        super().__init__(runtime, nursery)
        self._commands = commands

    async def start(
        self,
        argv: Sequence[str],
        *,
        command: str,
        cwd: str,
        env: Mapping[str, str],
        time_limit: float | None = None,
        item_id: str = "",
    ) -> Terminal:
        """See ``Terminals.start``."""
        if self._closing:
            raise OSError("the thread is being closed")
        if len(self.running) >= MAX_RUNNING:
            raise TooManyTerminals(f"{MAX_RUNNING} commands are running already")
        terminal = Terminal(self._new_session_id(), item_id, command, cwd, self._runtime.monotonic())
        terminal.time_limit = time_limit
        terminal.pid = 10_000 + len(self._commands.started)
        self.running[terminal.session_id] = terminal
        await self._nursery.start(self._play, terminal)
        return terminal

    async def _play(self, terminal: Terminal, task_status: trio.TaskStatus[Any]) -> None:
        code = 128 + signal.SIGKILL
        try:
            task_status.started()
            if terminal.time_limit is not None:
                terminal._limit.deadline = trio.current_time() + terminal.time_limit
            with terminal._limit:
                code = await self._commands.run(terminal)
            if terminal._limit.cancelled_caught:
                terminal.timed_out = not terminal._stopped
                code = TIMED_OUT if terminal.timed_out else 128 + signal.SIGTERM
        finally:
            del self.running[terminal.session_id]
            terminal._end(code, self._runtime.monotonic() - terminal.started_at)
