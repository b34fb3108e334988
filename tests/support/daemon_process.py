"""The daemon as a process, with a scripted model behind it and clients before it.

    async with open_daemon(tmp_path) as daemon:
        started = await daemon.client.call("thread/start", {})
        turn = await daemon.client.run_turn(started["thread"]["id"], "say hello | shell ls")

Everything is real: the installed program, a websocket, files below ``tmp_path``, a model server on a socket.
The environment is made from nothing: an empty HOME, no proxies. A second ``open_daemon`` on the same folder
finds what the first has left there.

At the end the process gets SIGTERM and must go with exit code 0, unless the test has ended it itself. Every
message that came over ``daemon.client`` or ``daemon.connect`` is then held against the schemas of
``tests.support.wire_schema``. What fails shows what the process wrote on stderr.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from trio_websocket import ConnectionClosed, HandshakeError

from spoold.client import Client, ConnectionLost, connect_websocket
from tests.support.scripted_model import ScriptedModel, open_scripted_model
from tests.support.traffic import Traffic
from tests.support.wire_schema import own_schema, problems, reference_schema

LIMIT = 90.0
"""Seconds after which a test that hangs fails; far above what any takes."""
STOP_LIMIT = 15.0

SPOOLD = (sys.executable, "-m", "spoold", "serve")

_ADDRESS = re.compile(rb"ws://127\.0\.0\.1:\d+")

_SETTINGS = {
    "model": "scripted-model",
    "model_provider": "scripted",
    "approval_policy": "never",
    "sandbox_mode": "danger-full-access",
}

_PROVIDER = """\

[model_providers.scripted]
name = "scripted model"
base_url = "{base_url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def write_config(
    home: Path, base_url: str, settings: Mapping[str, str | bool] | None = None, more: str = ""
) -> None:
    """Write ``config.toml``; ``settings`` are values of the top level, ``more`` is TOML for the end."""
    home.mkdir(parents=True, exist_ok=True)
    values = _SETTINGS | dict(settings or {})
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    (home / "config.toml").write_text(lines + _PROVIDER.format(base_url=base_url) + more)


def clean_environment(folder: Path, **variables: str) -> dict[str, str]:
    """The whole environment of a server whose home is ``folder/home``, with an empty HOME, made here."""
    user = folder / "user"
    user.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        # The daemon of this checkout, wherever another one is installed.
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HOME": str(user),
        "CODEX_HOME": str(folder / "home"),
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **variables,
    }


_CONNECTION_ENDED = (OSError, HandshakeError, ConnectionClosed, ConnectionLost)


class EndedEarly(AssertionError):
    """The process ended before a client could shake hands with it."""


@dataclass
class DaemonProcess:
    """A running daemon.

    Attributes:
        url: where it listens.
        home: its home folder.
        work: its working directory, empty at first.
        process: the process; it leads its own group.
        model: what it asks.
        client: a client that has shaken hands.
        traffic: what each client got.
    """

    url: str
    home: Path
    work: Path
    process: trio.Process
    model: ScriptedModel
    client: Client = field(init=False)
    traffic: list[Traffic] = field(default_factory=list)
    ended: bool = False
    _said: bytearray = field(default_factory=bytearray)

    @property
    def stderr(self) -> str:
        """What it has written there so far."""
        return self._said.decode(errors="replace")

    @asynccontextmanager
    async def connect(
        self, name: str = "tester", *, handshake: bool = True, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> AsyncGenerator[Client, None]:
        """One more client; without ``handshake`` it has only connected."""
        async with connect_websocket(self.url, headers=headers) as client:
            traffic = Traffic()
            client.watch = traffic.watch
            self.traffic.append(traffic)
            if handshake:
                await client.initialize(name)
            yield client

    async def end(self, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal, to the whole group if it is SIGKILL, and wait; the exit code."""
        self.ended = True
        if signal_number == signal.SIGKILL:
            os.killpg(self.process.pid, signal_number)
        else:
            self.process.send_signal(signal_number)
        return await self.process.wait()


@asynccontextmanager
async def open_daemon(
    folder: Path,
    *,
    model: ScriptedModel | None = None,
    settings: Mapping[str, str | bool] | None = None,
    config: str = "",
    arguments: Sequence[str] = (),
    program: Sequence[str] = SPOOLD,
    name: str = "tester",
    check_messages: bool = True,
    may_log_errors: bool = False,
    variables: Mapping[str, str] | None = None,
) -> AsyncGenerator[DaemonProcess, None]:
    """A daemon below ``folder``, with one client; killed with its group whatever happens.

    Args:
        folder: gets ``home``, ``work`` and ``user`` (the HOME of the process).
        model: the model to ask; without one, one is opened.
        settings: values for the top level of config.toml, over the usual ones.
        config: TOML for the end of config.toml.
        arguments: more of the command line.
        program: another server, as a command up to ``--listen``.
        name: the name of the client.
        check_messages: False leaves out the comparison with the schemas.
        may_log_errors: False fails the test when a traceback was logged.
        variables: more of the environment.

    Raises:
        EndedEarly: the process ended before the body began.
        Exception: what the body raised; not in the groups of the nurseries between, when it is alone.
    """
    opened = _open_daemon(
        folder,
        model,
        settings,
        config,
        [*program, "--listen", "ws://127.0.0.1:0", *arguments],
        variables,
        name,
    )
    try:
        async with opened as daemon:
            yield daemon
            await _leave(daemon)
            if check_messages:
                _check(daemon)
            if not may_log_errors:
                assert "Traceback" not in daemon.stderr, "the daemon logged an error of its own"
    except BaseExceptionGroup as group:
        raise _sole(group) from None


@asynccontextmanager
async def _open_daemon(
    folder: Path,
    model: ScriptedModel | None,
    settings: Mapping[str, str | bool] | None,
    config: str,
    command: Sequence[str],
    variables: Mapping[str, str] | None,
    name: str,
) -> AsyncGenerator[DaemonProcess, None]:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(LIMIT))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if model is None:
            model = await stack.enter_async_context(open_scripted_model(nursery))
        write_config(folder / "home", model.base_url, settings, config)
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=clean_environment(folder, **(variables or {})),
            start_new_session=True,
        )
        daemon = DaemonProcess("", folder / "home", work, process, model)
        try:
            announced = trio.Event()
            nursery.start_soon(_listen_to, daemon, announced)
            await announced.wait()
            daemon.url = _address(daemon)
            begun = False
            try:
                async with daemon.connect(name) as daemon.client:
                    begun = True
                    yield daemon
            except Exception as error:
                if begun or not isinstance(_sole(error), _CONNECTION_ENDED) or await _end_of(process) is None:
                    raise
                raise EndedEarly(f"the daemon ended with {process.returncode}") from error
        except BaseException as error:
            _sole(error).add_note(_account(daemon))
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_LIMIT):
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            nursery.cancel_scope.cancel()


def _sole(error: BaseException) -> BaseException:
    """What is in a group, if it is one only."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _account(daemon: DaemonProcess) -> str:
    """What helps to understand a failure."""
    lines = [f"--- the process (exit code {daemon.process.returncode}) wrote:", daemon.stderr[-20_000:]]
    for number, traffic in enumerate(daemon.traffic, 1):
        lines.append(f"--- the last messages that client {number} got:")
        lines += [f"{received}: {json.dumps(received.message)[:500]}" for received in traffic.received[-8:]]
    return "\n".join(lines)


async def _listen_to(daemon: DaemonProcess, announced: trio.Event) -> None:
    """Keep what the process writes; the pipe must never fill."""
    assert daemon.process.stdout is not None
    async for data in daemon.process.stdout:
        daemon._said += data
        if _ADDRESS.search(daemon._said):
            announced.set()
    announced.set()


def _address(daemon: DaemonProcess) -> str:
    found = _ADDRESS.search(daemon._said)
    if found is None:
        raise EndedEarly("the daemon ended before it listened")
    return found[0].decode()


async def _end_of(process: trio.Process) -> int | None:
    """The exit code of a process that has let go of its clients; None if it lives on."""
    with trio.move_on_after(STOP_LIMIT):
        return await process.wait()
    return None


async def _leave(daemon: DaemonProcess) -> None:
    if daemon.ended or daemon.process.returncode is not None:
        return
    daemon.process.terminate()
    with trio.move_on_after(STOP_LIMIT):
        code = await daemon.process.wait()
        assert code == 0, f"after SIGTERM the daemon ended with {code}"
        return
    raise AssertionError(f"the daemon did not end within {STOP_LIMIT} s of SIGTERM")


def _check(daemon: DaemonProcess) -> None:
    received = [message for traffic in daemon.traffic for message in traffic]
    schemas = [own_schema(), reference_schema()]
    wrong = [line for schema in schemas if schema is not None for line in problems(received, schema)]
    assert wrong == [], "messages that fit no schema:\n" + "\n".join(wrong)
