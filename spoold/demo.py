"""``make demo``: the daemon's main job, shown on this machine, offline, in under a minute.

Everything is real: a daemon process on a websocket, two clients, a shell command in the sandbox, SIGKILL, and
a resume from disk. Only the model is not: it is the built-in ``offline`` one, which follows simple rules.
Exit code 0 says that everything happened as told; any other, that it did not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from spoold.client import Client, connect_websocket

TIME_LIMIT = 120.0


class Stage:
    """Prints the account: coloured on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)
        self._number = 0

    def scene(self, title: str) -> None:
        """A new part of the story."""
        self._number += 1
        self._console.print(f"\n[bold]{self._number}. {title}[/bold]")

    def say(self, who: str, text: str) -> None:
        """One line of somebody."""
        self._begin(who)
        self._console.print(text, markup=False)

    def _begin(self, who: str) -> None:
        colour = {"daemon": "yellow", "alice": "cyan", "bob": "magenta"}[who]
        self._console.print(f"   [{colour}]{who:>6}[/{colour}]  ", end="")

    def stream(self, who: str) -> Streamed:
        """A line that grows."""
        self._begin(who)
        return Streamed(self._console)

    def done(self, text: str) -> None:
        """The last line."""
        self._console.print(f"\n[bold green]{text}[/bold green]")


class Streamed:
    """Text that is printed as it comes, indented like the rest."""

    def __init__(self, console: Any) -> None:
        self._console = console

    def add(self, text: str) -> None:
        """Print a piece."""
        self._console.print(text.replace("\n", "\n" + " " * 11), end="", markup=False)

    def end(self) -> None:
        """Finish the line."""
        self._console.print()


@asynccontextmanager
async def running_daemon(home: Path, cwd: Path) -> AsyncIterator[tuple[trio.Process, str]]:
    """A daemon on a free loopback port; yields its process and address. Killed at the end."""
    command = [sys.executable, "-m", "spoold", "serve", "--listen", "ws://127.0.0.1:0", "--home", str(home)]
    settings = {
        "model_provider": "offline",
        "approval_policy": "untrusted",
        "sandbox_mode": "workspace-write",
    }
    for key, value in settings.items():
        command += ["-c", f'{key}="{value}"']
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=cwd,
        # Commands run in a login shell: what somebody's profile prints is not part of the story.
        env={**os.environ, "HOME": str(cwd)},
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        said = b""
        while (found := re.search(rb"listens on (ws://\S+)\n", said)) is None:
            data = await process.stderr.receive_some(4096)
            if not data:
                raise RuntimeError(f"the daemon did not start: {said.decode(errors='replace')}")
            said += data
        yield process, found[1].decode()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def text(words: str) -> list[dict[str, Any]]:
    """User input."""
    return [{"type": "text", "text": words, "text_elements": []}]


async def streamed_turn(stage: Stage, client: Client, thread_id: str, words: str) -> dict[str, Any]:
    """Run a turn and print its text as it comes."""
    stage.say("alice", f"turn/start: {words}")
    await client.call("turn/start", {"threadId": thread_id, "input": text(words)})
    out = stage.stream("daemon")
    async for message in client.messages():
        if message["method"] == "item/agentMessage/delta":
            out.add(message["params"]["delta"])
        elif message["method"] == "turn/completed":
            out.end()
            turn: dict[str, Any] = message["params"]["turn"]
            stage.say("daemon", f"turn/completed: {turn['status']} after {turn['durationMs']} ms")
            return turn
    raise RuntimeError("the connection ended in the middle of a turn")


async def before_the_crash(stage: Stage, url: str, process: trio.Process) -> str:
    """Everything up to SIGKILL; gives the thread's id."""
    async with connect_websocket(url) as alice, connect_websocket(url) as bob:
        stage.scene("Two clients connect to one daemon, and Alice starts a thread")
        hello = await alice.initialize("alice")
        await bob.initialize("bob")
        stage.say("daemon", hello["userAgent"])
        started = await alice.call("thread/start", {})
        thread_id: str = started["thread"]["id"]
        stage.say(
            "alice", f"thread/start: {thread_id}, model {started['model']} ({started['modelProvider']})"
        )

        stage.scene("A turn, streamed")
        turn = await streamed_turn(stage, alice, thread_id, "hello")
        check(turn["status"] == "completed", "the first turn completes")

        stage.scene("A shell command asks for approval, and runs in the sandbox")
        await approved_command(stage, alice, thread_id)

        stage.scene("Bob attaches in the middle of a turn, and Alice interrupts it")
        await attach_and_interrupt(stage, alice, bob, thread_id)

        stage.scene("kill -9 in the middle of a turn")
        await alice.call("turn/start", {"threadId": thread_id, "input": text("stream 400 20")})
        for _ in range(5):
            await alice.wait_for("item/agentMessage/delta")
        stage.say("alice", "the turn is streaming...")
        os.killpg(process.pid, signal.SIGKILL)
        await alice.closed.wait()
        stage.say("daemon", "killed")
    return thread_id


async def approved_command(stage: Stage, alice: Client, thread_id: str) -> None:
    """A turn with a question and its answer."""
    words = "run echo $((6 * 7)) > answer.txt && cat answer.txt"
    stage.say("alice", f"turn/start: {words}")
    await alice.call("turn/start", {"threadId": thread_id, "input": text(words)})
    question = await alice.wait_for("item/commandExecution/requestApproval")
    stage.say("daemon", f"may I run: {question['params']['command']}")
    stage.say("alice", "accept")
    await alice.answer(question, {"decision": "accept"})
    ran = await alice.wait_for("item/completed", lambda note: note["item"]["type"] == "commandExecution")
    item = ran["params"]["item"]
    stage.say("daemon", f"exit code {item['exitCode']}, output {item['aggregatedOutput']!r}")
    check(item["aggregatedOutput"] == "42\n", "the command ran")
    await alice.wait_for("turn/completed")


async def attach_and_interrupt(stage: Stage, alice: Client, bob: Client, thread_id: str) -> None:
    """A second client sees the running turn, then its end."""
    started = await alice.call("turn/start", {"threadId": thread_id, "input": text("stream 400 20")})
    turn_id = started["turn"]["id"]
    for _ in range(5):
        await alice.wait_for("item/agentMessage/delta")
    seen = await bob.call("thread/resume", {"threadId": thread_id})
    turns = seen["thread"]["turns"]
    stage.say("bob", f"thread/resume: {len(turns)} turns, the last is {turns[-1]['status']}")
    check(turns[-1]["id"] == turn_id, "the running turn is in the snapshot")
    await bob.wait_for("item/agentMessage/delta")
    stage.say("bob", "now I see it streaming, too")
    await alice.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
    stage.say("alice", "turn/interrupt")
    for name, client in (("alice", alice), ("bob", bob)):
        ended = await client.wait_for("turn/completed", lambda note: note["turn"]["id"] == turn_id)
        stage.say(name, f"sees turn/completed: {ended['params']['turn']['status']}")
        check(ended["params"]["turn"]["status"] == "interrupted", f"{name} sees the interrupt")


async def after_the_crash(stage: Stage, url: str, thread_id: str) -> None:
    """A new daemon on the same home knows everything."""
    async with connect_websocket(url) as alice:
        await alice.initialize("alice")
        listed = await alice.call("thread/list", {})
        stage.say("alice", f"thread/list: {[row['preview'] for row in listed['data']]}")
        resumed = await alice.call("thread/resume", {"threadId": thread_id})
        turns = resumed["thread"]["turns"]
        for turn in turns:
            stage.say("daemon", f"{turn['status']:>11}: {', '.join(item['type'] for item in turn['items'])}")
        statuses = [turn["status"] for turn in turns]
        check(statuses == ["completed", "completed", "interrupted", "interrupted"], f"history: {statuses}")
        turn = await streamed_turn(stage, alice, thread_id, "and we go on")
        check(turn["status"] == "completed", "the thread goes on")


def check(held: bool, what: str) -> None:
    """The demo fails when something did not happen."""
    if not held:
        raise RuntimeError(f"the demo expected otherwise: {what}")


async def main() -> None:
    """The whole story."""
    stage = Stage()
    with trio.fail_after(TIME_LIMIT), tempfile.TemporaryDirectory(prefix="spoold-demo-") as folder:
        home, work = Path(folder, "home"), Path(folder, "work")
        await trio.Path(work).mkdir()
        async with running_daemon(home, work) as (process, url):
            stage.say("daemon", f"listens on {url}, home {home}")
            thread_id = await before_the_crash(stage, url, process)
        async with running_daemon(home, work) as (_, url):
            stage.scene("A new daemon on the same home: the thread is there, and goes on")
            await after_the_crash(stage, url, thread_id)
    stage.done("That was spoold. Your own: `.venv/bin/spoold serve --listen ws://127.0.0.1:9000`")


if __name__ == "__main__":
    trio.run(main)
