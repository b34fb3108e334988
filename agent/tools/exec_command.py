"""The tool ``exec_command``: one shell command, from the model's call to what the model is told.

The steps: read the arguments, let the policy decide (``command_policy``), ask where it says so, start the
command among the thread's terminals, show what it writes, wait for its end or for the yield time.

A call that stops waiting does not stop the command. While the turn goes on, somebody still watches it and
completes its item when it ends; a command that outlives its turn runs on among the thread's terminals, and
its item is never completed.

What a command writes in the first moments (``_QUIET``) is not streamed: most commands end within them, and
the finished item has all of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from agent.events import ApprovalFailed, CommandApproval, ItemCompleted, ItemDelta, ItemStarted
from agent.tools.call_arguments import BadArguments, unusable
from agent.tools.command_policy import Ask, Refuse, Run, amendment, command_key, judge
from agent.tools.exec_arguments import SPEC, ExecArguments, read_arguments
from agent.tools.output_buffer import shortened, token_count
from agent.tools.sandbox import SandboxProbe, SandboxStatus, sandboxed_argv, wants_sandbox
from agent.tools.terminals import Terminal, Terminals, TooManyTerminals
from agent.tools.toolset import ToolCall, ToolResult, ToolTurn
from protocol.items import CommandExecutionItem
from protocol.runtime import Runtime
from protocol.settings import ReadOnly, WorkspaceWrite
from protocol.shell_text import join_command

REJECTED = 'exec_command failed: CreateProcess { message: "Rejected(\\"rejected by user\\")" }'
ABORTED = "aborted by user"

_QUIET = 0.15
"""Seconds after the start in which output is not streamed."""
_MAX_TOKENS = 10_000
"""About how much of a command's output the model is given."""
_DECODED_AT_ONCE = 32 * 1024
"""Bytes. Decoding more than this could hold up the loop for a millisecond."""
_ENVIRONMENT = {"TERM": "dumb", "NO_COLOR": "1", "PAGER": "cat", "GIT_PAGER": "cat", "GH_PAGER": "cat"}
"""Nobody sits at these terminals: no colours, no pagers that wait for a key."""


class ExecCommand:
    """The tool of one loaded thread.

    Args:
        terminals: owner of the processes.
        probe: whether the sandbox works, asked when first needed.
        environment: what commands inherit; the daemon's own by default.
    """

    name = "exec_command"

    def __init__(
        self, terminals: Terminals, probe: SandboxProbe, environment: Mapping[str, str] | None = None
    ) -> None:
        self._terminals = terminals
        self._probe = probe
        self._environment = {**(os.environ if environment is None else environment), **_ENVIRONMENT}
        self._shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"

    def spec(self) -> dict[str, Any]:
        """The specification for the model."""
        return SPEC

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Run one command. Cancelled: a command that runs already goes on among the terminals."""
        try:
            arguments = read_arguments(call.arguments)
        except BadArguments as problem:
            return ToolResult(unusable(problem))
        return await _OneCommand(self, call.call_id, arguments, turn).run()

    async def start(
        self,
        argv: list[str],
        item: CommandExecutionItem,
        arguments: ExecArguments,
        turn: ToolTurn,
        sandboxed: bool,
    ) -> Terminal:
        """Start ``argv`` as the policy decided.

        Raises:
            OSError, TooManyTerminals: it cannot be started.
        """
        policy = turn.settings.sandbox_policy
        if sandboxed:
            assert isinstance(policy, ReadOnly | WorkspaceWrite)

            def wrapped() -> list[str]:
                return sandboxed_argv(argv, policy=policy, cwd=item.cwd, env=self._environment)

            argv = await trio.to_thread.run_sync(wrapped)
        return await self._terminals.start(
            argv,
            command=arguments.cmd,
            cwd=item.cwd,
            env=self._environment,
            time_limit=arguments.time_limit,
            item_id=item.id,
        )

    async def status(self, turn: ToolTurn) -> SandboxStatus:
        """Whether the sandbox works, where the turn's policy wants one."""
        wanted = wants_sandbox(turn.settings.sandbox_policy)
        return await self._probe.run() if wanted else SandboxStatus(works=True)

    def argv(self, arguments: ExecArguments) -> list[str]:
        """The command line that runs ``arguments.cmd``."""
        return [self._shell, "-lc" if arguments.login else "-c", arguments.cmd]


class _OneCommand:
    """One call on its way."""

    def __init__(self, tool: ExecCommand, call_id: str, arguments: ExecArguments, turn: ToolTurn) -> None:
        self._tool, self._arguments, self._turn = tool, arguments, turn
        self._argv = tool.argv(arguments)
        self._item = CommandExecutionItem(
            id=call_id,
            command=join_command(self._argv),
            cwd=os.path.normpath(os.path.join(turn.settings.cwd, arguments.workdir or "")),  # noqa: PTH118
            command_actions=[{"type": "unknown", "command": arguments.cmd}],
            started_at_ms=turn.runtime.now_ms(),
        )
        self._shown = False
        # Set once: the call has been answered, the rest is for clients only.
        self._yielded = False

    async def run(self) -> ToolResult:
        arguments, settings, grants = self._arguments, self._turn.settings, self._turn.grants
        verdict = judge(
            settings.approval_policy,
            settings.sandbox_policy,
            await self._tool.status(self._turn),
            escalated=arguments.escalated,
            granted=grants.cover(arguments.cmd, self._argv, escalated=arguments.escalated),
        )
        if isinstance(verdict, Refuse):
            return await self._refused(verdict)
        if isinstance(verdict, Ask):
            refusal = await self._ask(verdict)
            if refusal is not None:
                return refusal
        return await self._execute(verdict)

    async def _refused(self, verdict: Refuse) -> ToolResult:
        output = f"exec_command failed: {verdict.message}"
        return await self._failed(output) if verdict.shown else ToolResult(output)

    async def _ask(self, verdict: Ask) -> ToolResult | None:
        """Put the question; None when the command may run."""
        arguments = self._arguments
        key = command_key(self._argv, escalated=arguments.escalated)
        question = CommandApproval(
            item=self._item,
            reason=arguments.justification or verdict.reason,
            amendment=amendment(arguments.cmd, self._argv),
            argv=key,
        )
        # The actor shows the item together with the question.
        self._shown = True
        answer = await self._turn.port.ask(question)
        if isinstance(answer, ApprovalFailed):
            return await self._failed(f"exec_command failed: the approval request failed: {answer.message}")
        if answer == "decline":
            return ToolResult(REJECTED, self._ended("declined"), persist=False)
        if answer == "cancel":
            return ToolResult(ABORTED, self._ended("declined"), persist=False, ends_turn=True)
        self._turn.grants.learn(answer, key)
        return None

    async def _execute(self, verdict: Run | Ask) -> ToolResult:
        try:
            terminal = await self._tool.start(
                self._argv, self._item, self._arguments, self._turn, verdict.sandboxed
            )
        except (OSError, TooManyTerminals) as error:
            return await self._failed(f"exec_command failed: {error}")
        changes = {"process_id": str(terminal.session_id), "source": "unifiedExecStartup"}
        self._item = self._item.model_copy(update=changes)
        try:
            await self._show()
            streamed = trio.Event()
            self._turn.lingering.start_soon(self._follow, terminal, streamed)
            with trio.move_on_after(self._arguments.wait):
                await streamed.wait()
            if not streamed.is_set():
                self._yielded = True
        finally:
            # Nobody waits for it any more; an interrupted turn leaves it running too.
            terminal.in_background = True
        text, shown = await _decoded(terminal)
        output = _report(terminal, shown, self._turn.runtime)
        return ToolResult(output, None if self._yielded else self._finished(terminal, text))

    async def _follow(self, terminal: Terminal, streamed: trio.Event) -> None:
        """Post what the command writes until it ends; complete its item if the call did not wait for that."""
        with trio.move_on_after(_QUIET):
            await terminal.ended.wait()
        if not terminal.ended.is_set():
            terminal.stream_from_now()
        while (delta := await terminal.next_delta()) is not None:
            await self._turn.port.post(ItemDelta("commandOutput", self._item.id, delta))
        if self._yielded:
            text, _ = await _decoded(terminal)
            await self._turn.port.post(ItemCompleted(self._finished(terminal, text)))
        streamed.set()

    async def _show(self) -> None:
        if not self._shown:
            self._shown = True
            await self._turn.port.post(ItemStarted(self._item))

    async def _failed(self, output: str) -> ToolResult:
        """The command never ran."""
        await self._show()
        item = self._ended("failed").model_copy(update={"aggregated_output": output})
        return ToolResult(output, item)

    def _finished(self, terminal: Terminal, text: str) -> CommandExecutionItem:
        changes = {
            "aggregated_output": text or None,
            "exit_code": terminal.exit_code,
            "duration_ms": round((terminal.seconds or 0.0) * 1000),
        }
        status = "completed" if terminal.exit_code == 0 else "failed"
        return self._ended(status).model_copy(update=changes)

    def _ended(self, status: str) -> CommandExecutionItem:
        changes = {"status": status, "completed_at_ms": self._turn.runtime.now_ms()}
        return self._item.model_copy(update=changes)


async def _decoded(terminal: Terminal) -> tuple[str, str]:
    """What was written so far, for clients and for the model. Much of it is decoded off the loop."""
    kept = terminal.output.kept()

    def decode() -> tuple[str, str]:
        text = kept.decode("utf-8", "replace")
        return text, shortened(text, _MAX_TOKENS)

    if len(kept) <= _DECODED_AT_ONCE:
        return decode()
    return await trio.to_thread.run_sync(decode, abandon_on_cancel=True)


def _report(terminal: Terminal, output: str, runtime: Runtime) -> str:
    """What the model is told of a command, ended or not."""
    seconds = terminal.seconds
    if seconds is None:
        seconds = runtime.monotonic() - terminal.started_at
        state = f"Process running with session ID {terminal.session_id}"
    else:
        state = f"Process exited with code {terminal.exit_code}"
    if terminal.timed_out:
        output = (
            f"command timed out after {round((terminal.time_limit or 0.0) * 1000)} milliseconds\n{output}"
        )
    return (
        f"Chunk ID: {int(runtime.random() * 0x1000000):06x}\n"
        f"Wall time: {seconds:.4f} seconds\n"
        f"{state}\n"
        f"Original token count: {token_count(terminal.output.total)}\n"
        f"Output:\n{output}"
    )
