"""A client of the daemon for Trio programs: the demo, the tests and the benchmarks are written with it.

Small on purpose: it speaks JSON-RPC over a websocket (TCP or unix) or over a child's standard streams,
matches answers to requests, and keeps everything else in the order in which it came.

    async with connect_websocket("ws://127.0.0.1:9000") as client:
        await client.initialize("my-program")
        started = await client.call("thread/start", {})
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio
from pydantic_core import from_json, to_json

from transport.framing import MAX_MESSAGE_BYTES, LineFramer, TooLong
from transport.unix import connect_unix

Json = dict[str, Any]


class RpcFailed(Exception):
    """The server answered a request with an error.

    Attributes:
        code, message, data: the members of the error object.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")


class ConnectionLost(Exception):
    """The connection ended while something was waited for.

    Attributes:
        code: the websocket close code, None where there was no farewell.
    """

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"the connection ended (close code {code})")
        self.code = code


class _Wire(Protocol):
    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None: ...

    @property
    def close_code(self) -> int | None: ...


class Client:
    """One connection. Safe to use from several tasks.

    Attributes:
        seen: every notification and server request that came, oldest first; ``forget`` empties it.
        closed: set when the connection has ended.
        watch: called with every message that is sent or has come, and whether it came; it must not raise.
    """

    def __init__(self, wire: _Wire) -> None:
        self.seen: deque[Json] = deque()
        self.closed = trio.Event()
        self.watch: Callable[[Mapping[str, Any], bool], None] | None = None
        self._wire = wire
        self._ids = itertools.count(1)
        self._answers: dict[int, Json] = {}
        self._waiting: dict[int, trio.Event] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._cursor = 0
        self._sending = trio.Lock()

    async def read(self) -> None:
        """Receive until the connection ends; run by whoever opened it."""
        try:
            while (data := await self._wire.receive()) is not None:
                message: Json = from_json(data)
                if self.watch is not None:
                    self.watch(message, True)
                if "method" in message:
                    self.seen.append(message)
                    self._arrived.unpark_all()
                elif (waiting := self._waiting.get(message.get("id") or 0)) is not None:
                    self._answers[message["id"]] = message
                    waiting.set()
        finally:
            self.closed.set()
            for event in self._waiting.values():
                event.set()
            self._arrived.unpark_all()

    async def initialize(self, name: str, **capabilities: Any) -> Json:
        """The handshake, with the experimental API."""
        result: Json = await self.call(
            "initialize",
            {
                "clientInfo": {"name": name, "version": "1"},
                "capabilities": {"experimentalApi": True, **capabilities},
            },
        )
        await self.notify("initialized")
        return result

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message as it is. Cancelled: the connection may be broken."""
        if self.watch is not None:
            self.watch(message, False)
        async with self._sending:
            await self._wire.send(to_json(message))

    async def notify(self, method: str, params: Any = None) -> None:
        """Send a notification."""
        await self.send({"method": method} if params is None else {"method": method, "params": params})

    async def call(self, method: str, params: Any = None) -> Any:
        """Send a request and wait for its result.

        Raises:
            RpcFailed: the server answered with an error.
            ConnectionLost: the connection ended before the answer.
        """
        request_id = next(self._ids)
        event = self._waiting[request_id] = trio.Event()
        try:
            await self.send({"id": request_id, "method": method, "params": {} if params is None else params})
            await event.wait()
        finally:
            del self._waiting[request_id]
        answer = self._answers.pop(request_id, None)
        if answer is None:
            raise ConnectionLost(self._wire.close_code)
        if "error" in answer:
            raise RpcFailed(answer["error"])
        return answer["result"]

    async def answer(self, request: Mapping[str, Any], result: Any) -> None:
        """Answer a server request."""
        await self.send({"id": request["id"], "result": result})

    async def wait_for(self, method: str, where: Callable[[Json], bool] | None = None) -> Json:
        """The next message of this method after the last one waited for; its ``params`` pass ``where``.

        Raises:
            ConnectionLost: the connection ended first.
        """
        while True:
            while self._cursor < len(self.seen):
                message = self.seen[self._cursor]
                self._cursor += 1
                if message["method"] == method and (where is None or where(message["params"])):
                    return message
            if self.closed.is_set():
                raise ConnectionLost(self._wire.close_code)
            await self._arrived.park()

    async def messages(self) -> AsyncIterator[Json]:
        """What comes after the last message waited for, one by one, until the connection ends."""
        while True:
            while self._cursor < len(self.seen):
                self._cursor += 1
                yield self.seen[self._cursor - 1]
            if self.closed.is_set():
                return
            await self._arrived.park()

    def forget(self) -> None:
        """Drop what has been seen."""
        self.seen.clear()
        self._cursor = 0

    async def run_turn(self, thread_id: str, text: str, **params: Any) -> Json:
        """Start a turn and wait for its end; the turn as ``turn/completed`` shows it."""
        parts = [{"type": "text", "text": text, "text_elements": []}]
        started = await self.call("turn/start", {"threadId": thread_id, "input": parts, **params})
        turn_id = started["turn"]["id"]
        ended = await self.wait_for("turn/completed", lambda note: note["turn"]["id"] == turn_id)
        turn: Json = ended["params"]["turn"]
        return turn


@asynccontextmanager
async def _opened(wire: _Wire) -> AsyncIterator[Client]:
    client = Client(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read)
        try:
            yield client
        finally:
            nursery.cancel_scope.cancel()


class _WebSocketWire:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def close_code(self) -> int | None:
        reason = self._connection.closed
        return None if reason is None else int(reason.code)

    async def send(self, data: bytes) -> None:
        await self._connection.send_message(data.decode())

    async def receive(self) -> bytes | None:
        from trio_websocket import ConnectionClosed

        try:
            message: str | bytes = await self._connection.get_message()
        except ConnectionClosed:
            return None
        return message.encode() if isinstance(message, str) else message


@asynccontextmanager
async def connect_websocket(
    url: str, *, headers: Sequence[tuple[bytes, bytes]] = (), queue: int = 1
) -> AsyncIterator[Client]:
    """Connect to ``ws://HOST:PORT`` or ``unix://PATH``.

    Args:
        url: as the daemon prints it.
        headers: extra request headers, such as ``Authorization``.
        queue: messages taken from the socket before they are read; the socket is left full beyond that.
    """
    from trio_websocket import wrap_client_stream

    stream: trio.SocketStream
    if url.startswith("unix://"):
        host, resource = "localhost", "/rpc"
        stream = await connect_unix(Path(url.removeprefix("unix://")))
    else:
        parts = urlsplit(url)
        host, resource = parts.netloc, parts.path or "/"
        stream = await trio.open_tcp_stream(parts.hostname or "127.0.0.1", parts.port or 80)
    # The library leaves the socket open when it is cancelled, or finds the connection closed already.
    async with stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery,
            stream,
            host,
            resource,
            extra_headers=list(headers),
            message_queue_size=queue,
            max_message_size=MAX_MESSAGE_BYTES,
        )
        async with _opened(_WebSocketWire(connection)) as client:
            yield client
        with trio.move_on_after(2):
            await connection.aclose()
        nursery.cancel_scope.cancel()


class _ProcessWire:
    close_code = None

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._framer = LineFramer()
        self._ready: deque[bytes | TooLong] = deque()

    async def send(self, data: bytes) -> None:
        await self._stdin.send_all(data + b"\n")

    async def receive(self) -> bytes | None:
        while not self._ready:
            data = await self._stdout.receive_some(1 << 16)
            if not data:
                return None
            self._ready.extend(self._framer.feed(bytes(data)))
        line = self._ready.popleft()
        assert not isinstance(line, TooLong)
        return line


@asynccontextmanager
async def connect_process(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> AsyncIterator[tuple[Client, trio.Process]]:
    """Start a daemon that speaks on its standard streams; it is killed with its group at the end."""
    process = await trio.lowlevel.open_process(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=None if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        async with _opened(_ProcessWire(process)) as client:
            yield client, process
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
