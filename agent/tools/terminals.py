"""The child processes of one loaded thread.

Theory. A command must never outlive its owner: not when the owner is closed, not when the task that waits
for it is cancelled, and not when the daemon dies by SIGKILL and can clean up nothing. So:

* Every command is led by a small ``/bin/sh`` (the leader) in a session and process group of its own. The
  group is the unit of killing. When the command's main process ends its group ends too: what it left behind
  in the background is killed. (Under bubblewrap the PID namespace does the same, without escape. Without a
  sandbox, a process that deliberately makes a session of its own can leave; it runs with full access anyhow.)
* The leader's standard input is a pipe of which the daemon holds the only writing end. A watcher inside the
  group waits for its end of file, which comes when the daemon closes it or dies, however it dies, and then
  kills the group. The watcher is started before the command, so there is no moment in which a command runs
  unwatched, and as a member it keeps the group's number from being given to somebody else.
* The leader is the command's parent, rather than becoming the command by ``exec``: a "die with parent"
  request (bubblewrap's, PR_SET_PDEATHSIG) fires when the *thread* that forked ends, and Trio forks in worker
  threads that end when they are idle. The leader has one thread and lives as long as the command.
* The end is noticed through a pidfd before the leader is reaped: while it is a zombie its number is still
  ours, so the final ``killpg`` cannot hit a stranger.

Rejected: ``preexec_fn`` (unsafe with threads), ``setpriv --pdeathsig`` (the thread trap above, and it kills
one process, not the group).
"""

from __future__ import annotations

import codecs
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial

import trio

from agent.tools.output_buffer import OutputBuffer
from protocol.runtime import Runtime

_log = logging.getLogger(__name__)

MAX_RUNNING = 64
"""Commands of one thread that may run at the same time."""
TIMED_OUT = 124
"""Exit code of a command that ran into its timeout, as ``timeout(1)`` has it."""

_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_REAP = 3.0
"""Seconds after SIGKILL until we stop waiting for a process the kernel does not let die."""
_READ = 32 * 1024
_LAST_READS = 64
_STREAM_LIMIT = 1024 * 1024
"""Bytes of one command that are streamed while it runs; the finished item has head and tail of all."""
_FLOOD, _FLOOD_PAUSE = 16 * 1024 * 1024, 0.002
"""A command that wrote more than this is read a little slower, for the sake of everybody else."""

# The traps with an action (not an empty one) are reset in the command, so it sees the usual defaults, while
# the leader survives SIGTERM and leaves the command its time to end. What the leader itself would say
# ("Killed") is nobody's output.
_LEADER = """\
exec 3<&0 </dev/null
{ trap '' TERM INT HUP; read _ <&3; kill -9 -$$; } >/dev/null 2>&1 &
exec 3<&-
trap : TERM INT HUP
exec 4>&2 2>/dev/null
( exec "$@" 2>&4 4>&- )
exit $?"""


class TooManyTerminals(Exception):
    """The thread already runs ``MAX_RUNNING`` commands."""


class Terminal:
    """One command. Lives on in its owner when nobody waits for it.

    Attributes:
        session_id: its number within the daemon's conversation with the model, not a process id.
        item_id: the item that shows it to clients.
        pid: process id of the leader, which is also the group's number.
        in_background: it goes on although the call that started it is over.
        output: what it wrote so far, standard output and error merged.
        ended: set when the command has ended, its group is killed and its output is complete.
        exit_code: None while it runs; 128 + n for signal n; ``TIMED_OUT`` after a timeout.
        seconds: how long it ran, None while it runs.
        time_limit, timed_out: seconds after which it is killed, and whether that happened.
    """

    def __init__(self, session_id: int, item_id: str, command: str, cwd: str, started_at: float) -> None:
        self.session_id = session_id
        self.item_id = item_id
        self.command = command
        self.cwd = cwd
        self.pid = 0
        self.in_background = False
        self.output = OutputBuffer()
        self.ended = trio.Event()
        self.exit_code: int | None = None
        self.time_limit: float | None = None
        self.timed_out = False
        self.started_at = started_at
        self.seconds: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._streaming = False
        self._streamed = 0
        self._pending: list[str] = []
        self._wake = trio.Event()
        self._stopped = False
        self._limit = trio.CancelScope()

    def stop(self) -> None:
        """End it as a timeout would, though it is none: SIGTERM, and soon SIGKILL. ``ended`` tells when."""
        self._stopped = True
        self.in_background = False
        self._limit.cancel()

    def stream_from_now(self) -> None:
        """Keep what is written from now on for ``next_delta``."""
        self._streaming = True

    async def next_delta(self) -> str | None:
        """Text written since the last call, or None when the command has ended. One caller only.

        Cancelled: nothing is lost, the next call returns it.
        """
        while not self._pending:
            if self.ended.is_set():
                return None
            self._wake = trio.Event()
            await self._wake.wait()
        text = "".join(self._pending)
        self._pending.clear()
        return text

    def _wrote(self, data: bytes) -> None:
        self.output.write(data)
        # A finished character may begin in an earlier chunk: decode even while nobody listens.
        text = self._decoder.decode(data) if self._streamed < _STREAM_LIMIT else ""
        if text and self._streaming:
            self._streamed += len(data)
            self._pending.append(text)
            self._wake.set()

    def _end(self, exit_code: int, seconds: float) -> None:
        self.exit_code, self.seconds = exit_code, seconds
        self.ended.set()
        self._wake.set()


class Terminals:
    """The owner. Made by ``open_terminals``."""

    def __init__(self, runtime: Runtime, nursery: trio.Nursery) -> None:
        self._runtime = runtime
        self._nursery = nursery
        self._closing = False
        self.running: dict[int, Terminal] = {}
        """Commands that have not ended, by session id, oldest first."""

    def in_background(self) -> list[Terminal]:
        """Commands whose calls are over, by session id; those that are being stopped are not among them."""
        found = (self.running[number] for number in sorted(self.running))
        return [terminal for terminal in found if terminal.in_background and not terminal.ended.is_set()]

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
        """Start a command; returns once it runs.

        Args:
            argv: the program and its arguments.
            command: what the model asked for, for lists of running commands.
            cwd: its working directory, absolute.
            env: its whole environment.
            time_limit: seconds until its group is killed, or None.
            item_id: the item that shows it to clients.

        Raises:
            OSError: it cannot be started (no such working directory, the owner is closing...).
            TooManyTerminals: see there.

        Cancelled before it returns: the command, if it began, is killed. Cancelled later: nothing happens to
        it, it belongs to the owner.
        """
        if self._closing:
            raise OSError("the thread is being closed")
        if len(self.running) >= MAX_RUNNING:
            raise TooManyTerminals(f"{MAX_RUNNING} commands are running already")
        terminal = Terminal(self._new_session_id(), item_id, command, cwd, self._runtime.monotonic())
        terminal.time_limit = time_limit
        self.running[terminal.session_id] = terminal
        launch = partial(
            subprocess.Popen,
            ["/bin/sh", "-c", _LEADER, "spoold-command", *argv],
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            bufsize=0,
        )
        await self._nursery.start(self._own, terminal, launch)
        return terminal

    def _new_session_id(self) -> int:
        while True:
            session_id = 1000 + int(self._runtime.random() * 99_000)
            if session_id not in self.running:
                return session_id

    async def _own(
        self,
        terminal: Terminal,
        launch: partial[subprocess.Popen[bytes]],
        task_status: trio.TaskStatus[None],
    ) -> None:
        """One command from its start to its end."""
        try:
            with ExitStack() as ours:
                with ExitStack() as theirs:
                    alive = _pipe(reader=theirs, writer=ours)
                    output = _pipe(reader=ours, writer=theirs)
                    process = await trio.to_thread.run_sync(
                        partial(launch, stdin=alive[0], stdout=output[1], stderr=output[1])
                    )
                await self._watch(terminal, process, output[0], task_status)
        finally:
            del self.running[terminal.session_id]

    async def _watch(
        self,
        terminal: Terminal,
        process: subprocess.Popen[bytes],
        out_read: int,
        task_status: trio.TaskStatus[None],
    ) -> None:
        terminal.pid = process.pid
        pidfd = os.pidfd_open(process.pid)
        os.set_blocking(out_read, False)
        try:
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read_output, out_read, terminal)
                if terminal.time_limit is not None:
                    terminal._limit.deadline = trio.current_time() + terminal.time_limit
                with terminal._limit:
                    await trio.lowlevel.wait_readable(pidfd)
                if terminal._limit.cancelled_caught:
                    terminal.timed_out = not terminal._stopped
                    await _stop_group(process.pid, pidfd)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _stop_group(process.pid, pidfd)
            os.close(pidfd)
            code = process.poll()
            if code is None:
                _log.error("process %d did not die of SIGKILL; it is left to the kernel", process.pid)
                code = -signal.SIGKILL
            _read_rest(out_read, terminal)
            exit_code = TIMED_OUT if terminal.timed_out else code if code >= 0 else 128 - code
            terminal._end(exit_code, self._runtime.monotonic() - terminal.started_at)


@asynccontextmanager
async def open_terminals(runtime: Runtime) -> AsyncIterator[Terminals]:
    """An owner of commands. Leaving it kills what still runs, within ``_GRACE`` and ``_REAP`` seconds."""
    async with trio.open_nursery() as nursery:
        terminals = Terminals(runtime, nursery)
        try:
            yield terminals
        finally:
            terminals._closing = True
            nursery.cancel_scope.cancel()


def _pipe(*, reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed with the given stacks."""
    ends = os.pipe()
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


async def _read_output(fd: int, terminal: Terminal) -> None:
    while True:
        await trio.lowlevel.wait_readable(fd)
        with suppress(BlockingIOError):
            data = os.read(fd, _READ)
            if not data:
                return
            terminal._wrote(data)
        if terminal.output.total > _FLOOD:
            await trio.sleep(_FLOOD_PAUSE)


def _read_rest(fd: int, terminal: Terminal) -> None:
    """What the ended command left in the pipe. Does not wait for those that still hold the other end."""
    with suppress(BlockingIOError):
        for _ in range(_LAST_READS):
            data = os.read(fd, _READ)
            if not data:
                break
            terminal._wrote(data)


async def _stop_group(pgid: int, pidfd: int) -> None:
    """End a group whose leader is not reaped yet: at once if the leader has ended, else politely first."""
    with trio.move_on_after(0) as look:
        await trio.lowlevel.wait_readable(pidfd)
    if look.cancelled_caught:
        _signal_group(pgid, signal.SIGTERM)
        with trio.move_on_after(_GRACE):
            await trio.lowlevel.wait_readable(pidfd)
    _signal_group(pgid, signal.SIGKILL)
    with trio.move_on_after(_REAP):
        await trio.lowlevel.wait_readable(pidfd)


def _signal_group(pgid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pgid, number)
