"""The daemon on its standard streams, as a program starts it that wants it for itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from spoold.client import Client, connect_process
from tests.support.daemon_process import LIMIT, SPOOLD, clean_environment, write_config
from tests.support.scripted_model import ScriptedModel

DEAD_MODEL = "http://127.0.0.1:9/v1"


def prepare(folder: Path, model: ScriptedModel | None = None) -> tuple[list[str], dict[str, str], str]:
    """Command, environment and working directory of a daemon below ``folder``."""
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    write_config(folder / "home", DEAD_MODEL if model is None else model.base_url)
    return [*SPOOLD, "--listen", "stdio://"], clean_environment(folder), str(work)


@asynccontextmanager
async def open_stdio(folder: Path, model: ScriptedModel) -> AsyncGenerator[tuple[Client, trio.Process], None]:
    """A daemon and its one client, which has shaken hands."""
    command, env, cwd = prepare(folder, model)
    with trio.fail_after(LIMIT):
        async with connect_process(command, env=env, cwd=cwd) as (client, process):
            await client.initialize("stdio tester")
            yield client, process


@asynccontextmanager
async def open_raw(folder: Path) -> AsyncGenerator[RawProcess, None]:
    """A daemon whose client writes any bytes; it must end by itself with 0 when its input ends."""
    command, env, cwd = prepare(folder)
    with trio.fail_after(LIMIT):
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=cwd
        )
        raw = RawProcess(process)
        try:
            yield raw
            await raw.stdin.aclose()
            assert await process.wait() == 0
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await raw.stdin.aclose()
                await raw.stdout.aclose()


class RawProcess:
    """Bytes in, decoded lines out."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin, self.stdout = process.stdin, process.stdout
        self._rest = b""
        self._ids = 1000

    async def line(self) -> Any:
        """The next line that the daemon writes."""
        while b"\n" not in self._rest:
            data = await self.stdout.receive_some(1 << 16)
            assert data, "the daemon closed its output"
            self._rest += bytes(data)
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)

    async def ask(self, method: str, params: Any) -> Any:
        """A good request; its answer must be the next line."""
        self._ids += 1
        request = {"id": self._ids, "method": method, "params": params}
        await self.stdin.send_all(json.dumps(request).encode() + b"\n")
        answer = await self.line()
        assert answer["id"] == self._ids, f"something else came first: {answer}"
        return answer

    async def shake_hands(self) -> None:
        await self.ask("initialize", {"clientInfo": {"name": "raw", "version": "1"}})


def rollout(home: Path) -> list[dict[str, Any]]:
    """The lines of the only session of a home."""
    (path,) = (home / "sessions").rglob("rollout-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def endings(home: Path) -> list[str]:
    """The kinds of the terminal lines of the only session."""
    kinds = {"task_complete", "turn_aborted"}
    found = [line["payload"].get("type") for line in rollout(home) if line["type"] == "event_msg"]
    return [kind for kind in found if kind in kinds]
