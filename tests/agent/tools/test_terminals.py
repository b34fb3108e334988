"""Processes and their end: nothing outlives its owner, nothing blocks, nothing grows without bound."""

# ruff: noqa: ASYNC110, ASYNC240
# What is watched here (/proc, files that other processes write) sends no events.

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from agent.tools.sandbox import SandboxProbe, sandboxed_argv
from agent.tools.terminals import MAX_RUNNING, Terminal, Terminals, TooManyTerminals, open_terminals
from protocol.settings import WorkspaceWrite
from tests.agent.stage import SeededRuntime

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
ROOT = Path(__file__).parents[3]
OWNER = """\
import trio
from agent.tools.terminals import open_terminals
from tests.agent.stage import SeededRuntime

async def main():
    async with open_terminals(SeededRuntime()) as owner:
        await owner.start({argv!r}, command="x", cwd="/", env={env!r})
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.fixture
async def terminals(nursery: object) -> AsyncIterator[Terminals]:
    async with open_terminals(SeededRuntime()) as owner:
        yield owner


async def start(owner: Terminals, script: str, cwd: Path | str = "/", limit: float | None = None) -> Terminal:
    return await owner.start(
        ["/bin/bash", "-c", script], command=script, cwd=str(cwd), env=ENV, time_limit=limit
    )


async def ended(terminal: Terminal) -> Terminal:
    with trio.fail_after(20):
        await terminal.ended.wait()
    return terminal


async def written(terminal: Terminal, text: str) -> None:
    """Wait until the command has written ``text``."""
    with trio.fail_after(20):
        while text not in terminal.output.text():
            terminal._wake = trio.Event()
            terminal.stream_from_now()
            await terminal._wake.wait()


async def gone(pid: int) -> None:
    """Wait until a process, which need not be our child, is dead (a zombie counts)."""
    with trio.fail_after(20):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)


async def group_gone(pgid: int) -> None:
    """Wait until no process of a group lives; a zombie does not."""
    with trio.fail_after(20):
        while any(
            _group_of_living(entry) == pgid for entry in Path("/proc").iterdir() if entry.name.isdigit()
        ):
            await trio.sleep(0.01)


def _group_of_living(process: Path) -> int | None:
    try:
        state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(group)


async def pid_in(path: Path) -> int:
    """The number that a script has written, complete, to ``path``."""
    with trio.fail_after(20):
        while not (path.exists() and path.read_text().endswith("\n")):
            await trio.lowlevel.checkpoint()
    return int(path.read_text())


async def test_output_and_error_are_merged_and_the_exit_code_is_kept(terminals: Terminals) -> None:
    terminal = await ended(await start(terminals, "echo out; echo err >&2; exit 3"))
    assert (terminal.output.text(), terminal.exit_code) == ("out\nerr\n", 3)
    assert terminals.running == {}


async def test_death_by_signal_has_the_shells_exit_code(terminals: Terminals) -> None:
    terminal = await ended(await start(terminals, "kill -9 $$"))
    assert (terminal.output.text(), terminal.exit_code) == ("", 128 + 9)


async def test_a_command_has_no_input_and_no_stray_descriptors(terminals: Terminals) -> None:
    terminal = await ended(await start(terminals, "cat; cd /proc/self/fd; for fd in *; do echo $fd; done"))
    assert set(terminal.output.text().split()) <= {"0", "1", "2", "3"} | {"255"}
    listing = await ended(await terminals.start(["/bin/ls", "/proc/self/fd"], command="ls", cwd="/", env=ENV))
    # The fourth is the folder that ls itself reads.
    assert listing.output.text().split() == ["0", "1", "2", "3"]


async def test_a_command_sees_the_usual_signal_handling(terminals: Terminals) -> None:
    terminal = await ended(await start(terminals, "grep SigIgn /proc/self/status"))
    ignored = int(terminal.output.text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1) | 1 << (signal.SIGPIPE - 1))


async def test_a_missing_working_directory_is_an_error(terminals: Terminals) -> None:
    with pytest.raises(FileNotFoundError, match="/no/such"):
        await start(terminals, "true", "/no/such/place")
    assert terminals.running == {}


async def test_a_program_that_does_not_exist_ends_with_127(terminals: Terminals) -> None:
    terminal = await ended(await terminals.start(["/no/such"], command="x", cwd="/", env=ENV))
    assert terminal.exit_code == 127
    assert "not found" in terminal.output.text()


async def test_what_a_command_leaves_in_the_background_ends_with_it(
    terminals: Terminals, tmp_path: Path
) -> None:
    script = (
        f"(trap '' TERM HUP; sleep 1000) & (sleep 1000 >&- 2>&-) & echo $! > {tmp_path}/pid; echo started"
    )
    terminal = await ended(await start(terminals, script))
    assert (terminal.exit_code, terminal.output.text()) == (0, "started\n")
    await gone(await pid_in(tmp_path / "pid"))


async def test_a_daemon_that_leaves_the_group_does_not_hold_up_the_end(
    terminals: Terminals, tmp_path: Path
) -> None:
    terminal = await ended(
        await start(terminals, f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' & sleep 0.1")
    )
    pid = await pid_in(tmp_path / "pid")
    assert terminal.exit_code == 0
    os.kill(pid, signal.SIGKILL)


async def test_closing_its_output_does_not_end_a_command(terminals: Terminals, tmp_path: Path) -> None:
    terminal = await start(
        terminals, f"exec >&- 2>&-; until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 7"
    )
    (tmp_path / "go").touch()
    assert (await ended(terminal)).exit_code == 7


async def test_a_time_limit_kills_the_group(terminals: Terminals, tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; echo begun; sleep 1000"
    terminal = await ended(await start(terminals, script, limit=0.2))
    assert terminal.timed_out
    assert (terminal.exit_code, terminal.output.text()) == (124, "begun\n")
    await gone(await pid_in(tmp_path / "pid"))


async def test_a_stopped_command_has_not_timed_out(terminals: Terminals) -> None:
    terminal = await start(terminals, "echo on; sleep 100", limit=50)
    await written(terminal, "on")
    terminal.stop()
    await ended(terminal)
    assert (terminal.exit_code, terminal.timed_out) == (128 + 15, False)
    await group_gone(terminal.pid)
    terminal.stop()


async def test_only_what_nobody_waits_for_is_in_the_background(terminals: Terminals) -> None:
    left, waited_for, over = [await start(terminals, "sleep 100") for _ in range(3)]
    left.in_background = over.in_background = True
    assert waited_for not in terminals.in_background()
    assert terminals.in_background() == sorted([left, over], key=lambda each: each.session_id)
    over.stop()
    assert terminals.in_background() == [left], "what is being stopped is as good as gone"


async def test_a_command_may_clean_up_on_sigterm(terminals: Terminals) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do read -t 0.01 <> <(:); done"
    terminal = await ended(await start(terminals, script, limit=0.5))
    assert terminal.output.text() == "ready\nbye\n"


async def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(terminals: Terminals) -> None:
    terminal = await ended(await start(terminals, "trap '' TERM; while :; do sleep 1000; done", limit=0.1))
    assert terminal.timed_out
    assert terminal.seconds is not None
    assert terminal.seconds >= 1.0


async def test_closing_the_owner_kills_everything_at_the_same_time() -> None:
    with trio.fail_after(20):
        async with open_terminals(SeededRuntime()) as owner:
            stubborn = [
                await start(owner, "trap '' TERM; echo on; while :; do sleep 1000; done") for _ in range(5)
            ]
            for terminal in stubborn:
                await written(terminal, "on")
            begun = trio.current_time()
        assert trio.current_time() - begun < 4
    for terminal in stubborn:
        assert terminal.exit_code is not None
        await group_gone(terminal.pid)


async def test_a_cancelled_owner_kills_its_commands() -> None:
    with trio.CancelScope() as scope:
        async with open_terminals(SeededRuntime()) as owner:
            terminal = await start(owner, "sleep 1000 & sleep 1000")
            scope.cancel()
            await trio.sleep_forever()
    assert terminal.ended.is_set()
    await group_gone(terminal.pid)


async def test_a_start_that_is_cancelled_leaves_no_process(terminals: Terminals) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await start(terminals, "sleep 1000")
    with trio.fail_after(20):
        while terminals.running:
            await trio.lowlevel.checkpoint()


async def test_a_closing_owner_starts_nothing() -> None:
    async with open_terminals(SeededRuntime()) as owner:
        pass
    with pytest.raises(OSError, match="being closed"):
        await start(owner, "true")


async def test_too_many_commands_are_refused(terminals: Terminals) -> None:
    for number in range(MAX_RUNNING):
        terminals.running[number] = Terminal(number, "", "", "/", 0.0)
    with pytest.raises(TooManyTerminals):
        await start(terminals, "true")
    terminals.running.clear()


def pids_that_say(tag: str) -> list[int]:
    """Processes of the machine, seen from outside of any sandbox, with ``tag`` among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if tag.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@pytest.mark.parametrize("sandboxed", [False, True])
async def test_commands_die_when_the_daemon_is_killed(tmp_path: Path, sandboxed: bool) -> None:
    """kill -9 of the owning process, with grandchildren that ignore every signal they can."""
    tag = f"1000.{os.getpid()}{int(sandboxed)}"
    inner = (
        f"trap '' TERM HUP INT; (trap '' TERM HUP; exec sleep {tag}) & touch {tmp_path}/on; exec sleep {tag}"
    )
    argv = ["/bin/bash", "-c", inner]
    if sandboxed:
        status = await SandboxProbe().run()
        if not status.works:
            pytest.skip(f"bubblewrap does not work on this machine: {status.problem}")
        policy = WorkspaceWrite(writable_roots=[str(tmp_path)])
        argv = sandboxed_argv(argv, policy=policy, cwd="/usr", env={})
    program = tmp_path / "owner.py"
    program.write_text(OWNER.format(argv=argv, env=ENV))
    owner = await trio.to_thread.run_sync(
        lambda: subprocess.Popen([sys.executable, str(program)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    )
    try:
        with trio.fail_after(30):
            while not (tmp_path / "on").exists():
                assert owner.poll() is None
                await trio.sleep(0.01)
        assert len(pids_that_say(tag)) >= 2
    finally:
        owner.kill()
        owner.wait()
    with trio.fail_after(20):
        while pids_that_say(tag):
            await trio.sleep(0.01)


async def test_ten_megabytes_are_kept_by_head_and_tail(terminals: Terminals) -> None:
    script = "echo first; head -c 10000000 /dev/zero | tr '\\0' x; echo; echo last"
    terminal = await ended(await start(terminals, script))
    text = terminal.output.text()
    assert terminal.output.total == 10_000_000 + 12
    assert len(text) < 1_100_000
    assert text.startswith("first\nxxx")
    assert text.endswith("xxx\nlast\n")


async def test_binary_output_is_replaced_and_a_character_cut_in_two_is_not(terminals: Terminals) -> None:
    terminal = await start(
        terminals, "read -t 0.2 <> <(:); printf '\\303'; read -t 0.2 <> <(:); printf '\\244 \\377\\000end'"
    )
    terminal.stream_from_now()
    deltas = []
    with trio.fail_after(20):
        while (delta := await terminal.next_delta()) is not None:
            deltas.append(delta)
    assert deltas == ["ä \ufffd\0end"]
    assert terminal.output.text() == "ä \ufffd\0end"


async def test_a_flood_does_not_starve_the_loop_or_fill_memory(terminals: Terminals) -> None:
    terminal = await start(terminals, "yes", limit=1.0)
    terminal.stream_from_now()
    worst = 0.0
    with trio.fail_after(20):
        while not terminal.ended.is_set():
            before = trio.current_time()
            await trio.sleep(0.005)
            worst = max(worst, trio.current_time() - before)
    assert sum(map(len, terminal._pending)) <= 1024 * 1024 + 64 * 1024
    assert len(terminal.output.text()) < 1_100_000
    assert worst < 0.5, f"the loop stood still for {worst:.3f} s"


async def test_a_cancelled_wait_for_text_loses_none(terminals: Terminals, tmp_path: Path) -> None:
    terminal = await start(terminals, f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo text")
    terminal.stream_from_now()
    with trio.move_on_after(0):
        await terminal.next_delta()
    (tmp_path / "go").touch()
    with trio.fail_after(20):
        assert await terminal.next_delta() == "text\n"
        assert await terminal.next_delta() is None
