"""Starting the two programs under the same conditions, and the scripted model that both talk to.

The environment is made from nothing: an empty HOME (the reference starts a login shell for a thread), no
proxies, no switches of Python. The reference's plugins, apps and analytics are off, for they would go to
the network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.reference import ROOT
from spoold.client import Client, connect_process, connect_websocket

WEBSOCKET = "websocket"
STDIO = "stdio"

_START_DEADLINE = 60.0
_STOP_DEADLINE = 15.0
_ADDRESS = re.compile(r"(ws://127\.0\.0\.1:\d+)\s")  # the line is complete

_CONFIG = """\
model = "mock-model"
model_provider = "mock"
approval_policy = "never"
sandbox_mode = "read-only"
check_for_update_on_startup = false

[model_providers.mock]
name = "scripted model"
base_url = "{base_url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0

[features]
plugins = false
apps = false
remote_plugin = false

[analytics]
enabled = false
"""


@dataclass(frozen=True)
class Program:
    """A server to measure: its name in the table, and its command up to ``--listen``."""

    name: str
    command: tuple[str, ...]


def spoold_program(prefix: tuple[str, ...] = ()) -> Program:
    """spoold as it is in this environment; ``prefix`` stands after the interpreter."""
    return Program("spoold", (sys.executable, *prefix, "-m", "spoold", "serve"))


def reference_program(binary: Path) -> Program:
    """The reference server."""
    return Program("reference", (str(binary), "app-server"))


@dataclass(frozen=True)
class Server:
    """A running server."""

    program: Program
    pid: int
    cwd: Path

    async def new_thread(self, client: Client) -> str:
        """Start a thread; its id."""
        started = await client.call("thread/start", {"cwd": str(self.cwd)})
        thread_id: str = started["thread"]["id"]
        return thread_id


@dataclass
class Bench:
    """What every measurement gets.

    Attributes:
        programs: spoold, and the reference unless it is left out, in the order they take turns.
        folder: an empty folder; everything that is written goes there.
        model_url: ``base_url`` of the scripted model.
        quick: fewer repetitions.
    """

    programs: list[Program]
    folder: Path
    model_url: str
    quick: bool
    _homes: int = field(default=0, init=False)

    def new_home(self, program: Program) -> Path:
        """A home folder with its config.toml, beside an empty HOME and a working directory."""
        self._homes += 1
        home = self.folder / f"{self._homes}-{program.name}" / "home"
        for made in (home, home.parent / "user", home.parent / "work"):
            made.mkdir(parents=True)
        (home / "config.toml").write_text(_CONFIG.format(base_url=self.model_url))
        return home

    def environment(self, home: Path) -> dict[str, str]:
        """The whole environment of a server."""
        # Where it is set, it says which spoold this one is: the one whose benchmarks these are.
        ours = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
        return {
            **ours,
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home.parent / "user"),
            "CODEX_HOME": str(home),
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "RUST_LOG": "error",
        }

    @asynccontextmanager
    async def connected(
        self, program: Program, home: Path, transport: str = WEBSOCKET
    ) -> AsyncIterator[tuple[Server, Client]]:
        """The program, and one client that has shaken hands; it gets SIGTERM at the end."""
        cwd = home.parent / "work"
        if transport == STDIO:
            async with self._on_stdio(program, home) as (client, process):
                await client.initialize("benchmarks")
                yield Server(program, process.pid, cwd), client
            return
        log_path = home.parent / "server.log"
        with log_path.open("wb") as log:
            process = await trio.lowlevel.open_process(
                [*program.command, "--listen", "ws://127.0.0.1:0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(home),
                cwd=str(cwd),
            )
        try:
            with trio.fail_after(_START_DEADLINE):
                url = await _announced(process, log_path)
            async with connect_websocket(url) as client:
                await client.initialize("benchmarks")
                yield Server(program, process.pid, cwd), client
        except Exception as error:
            said = await trio.Path(log_path).read_text(errors="replace")
            error.add_note(f"{program.name} (exit code {process.poll()}) said: {said[-2000:].strip()}")
            raise
        finally:
            await _end(process)

    async def time_start(self, program: Program, home: Path) -> float:
        """Seconds from starting the process to its initialize result, over stdio."""
        began = trio.current_time()
        async with self._on_stdio(program, home) as (client, _process):
            await client.initialize("benchmarks")
            return trio.current_time() - began

    @asynccontextmanager
    async def _on_stdio(self, program: Program, home: Path) -> AsyncIterator[tuple[Client, trio.Process]]:
        # The client lets a child write to our stderr; the shell only redirects and becomes the program.
        quiet = ("/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh")
        async with connect_process(
            [*quiet, *program.command, "--listen", "stdio://"],
            env=self.environment(home),
            cwd=str(home.parent / "work"),
        ) as (client, process):
            try:
                yield client, process
            finally:
                await _end(process)


async def _announced(process: trio.Process, log_path: Path) -> str:
    while True:
        text = await trio.Path(log_path).read_text(errors="replace")
        if found := _ADDRESS.search(text):
            return found[1]
        if process.poll() is not None:
            raise RuntimeError(f"a server ended at once with {process.returncode}: {text.strip()}")
        await trio.sleep(0.02)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.terminate()
            with trio.move_on_after(_STOP_DEADLINE):
                await process.wait()
                return
            process.kill()
        await process.wait()


@asynccontextmanager
async def scripted_model() -> AsyncIterator[str]:
    """The scripted model in a process of its own; its ``base_url``."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.support.scripted_model", "0"], stdout=subprocess.PIPE, cwd=str(ROOT)
    )
    try:
        assert process.stdout is not None
        line = b""
        with trio.fail_after(_START_DEADLINE):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some()
                if not data:
                    raise RuntimeError("the scripted model did not start")
                line += data
        yield line.decode().strip()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
