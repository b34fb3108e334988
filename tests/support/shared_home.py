"""Several processes of the program on one home, each with a client on its standard streams.

    async with open_shared_home(tmp_path) as home:
        async with home.process("first") as first:
            await first.client.call("thread/start", {})

What a process says on stderr is in ``Member.said``; ``finish`` closes its stdin and waits for its exit code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from spoold.client import Client, connect_process
from tests.support.daemon_process import LIMIT, clean_environment, write_config
from tests.support.scripted_model import ScriptedModel, open_scripted_model

ROOT = Path(__file__).parents[2]
# The shell becomes the program, so that what it says can be read while it runs.
_SAYING_INTO = ("/bin/sh", "-c", 'exec "$@" 2>"$0"')
APP_SERVER = (sys.executable, "-m", "spoold", "app-server")


@dataclass
class Member:
    """One process: its client has shaken hands."""

    client: Client
    process: trio.Process
    errors: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> list[str]:
        """The lines it has written to stderr."""
        return self.errors.read_text().splitlines()

    def kill(self) -> None:
        """As a crash would, with everything it has started."""
        os.killpg(self.pid, signal.SIGKILL)

    async def leave(self) -> None:
        """The client goes: stdin ends."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def finish(self) -> int:
        """The client goes, and the process with it; its exit code."""
        await self.leave()
        return await self.process.wait()


@dataclass
class SharedHome:
    """A home with a configuration and no process."""

    folder: Path
    home: Path
    model: ScriptedModel
    started: int = 0

    @property
    def control_socket(self) -> Path:
        return self.home / "app-server-control" / "app-server-control.sock"

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.folder, CODEX_HOME=str(self.home), PYTHONPATH=str(ROOT))

    @asynccontextmanager
    async def process(
        self, name: str, *, arguments: Sequence[str] = (), handshake: bool = True, work: str = "work"
    ) -> AsyncGenerator[Member, None]:
        """A process with a client of this name, started in the folder ``work``; killed at the end."""
        self.started += 1
        errors = self.folder / f"stderr-{self.started}-{name}"
        directory = self.folder / work
        directory.mkdir(exist_ok=True)
        command = [*_SAYING_INTO, str(errors), *APP_SERVER, *arguments]
        async with connect_process(command, env=self.environment, cwd=str(directory)) as (client, process):
            member = Member(client, process, errors)
            try:
                if handshake:
                    await client.initialize(name)
                yield member
            except BaseException as error:
                if errors.exists():
                    error.add_note(f"--- {name} (process {process.pid}) said:\n{errors.read_text()[-5000:]}")
                raise

    async def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """The program, to its end."""
        return await trio.run_process(
            [sys.executable, "-m", "spoold", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@asynccontextmanager
async def open_shared_home(
    folder: Path, *, home: Path | None = None, config: str = "", approval_policy: str = "never"
) -> AsyncGenerator[SharedHome, None]:
    """A home below ``folder`` that asks a scripted model. The body may take no longer than ``LIMIT``."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(LIMIT):
            async with open_scripted_model(nursery) as model:
                place = home or folder / "home"
                write_config(place, model.base_url, {"approval_policy": approval_policy}, config)
                yield SharedHome(folder, place, model)
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces; ``open_shared_home`` bounds it."""
    while not condition():  # noqa: ASYNC110 - other processes set no event here
        await trio.sleep(0.005)
