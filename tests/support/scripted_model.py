"""A model server that does what the test says, on a real loopback socket.

    async with open_scripted_model(nursery) as model:
        ... base_url=model.base_url ...

What it answers is written in the last thing the user said, in the language of
``spoold.testing.model_script``, or in ``model.script("say one", "say two")``, which goes first, one entry
per request.

``/responses`` and ``/chat/completions`` speak the same script.
Run it by itself: ``python -m tests.support.scripted_model PORT``.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
import trio

from spoold.testing.model_script import Gate, Hangup, Piece, compile_step, step_of
from tests.support.scripted_wire import ChatWire, ResponsesWire, Wire

MOST_REQUEST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class ModelCall:
    """A request that the server got. ``headers`` has lower-case names; ``target`` has the query."""

    method: str
    target: str
    headers: dict[str, str]
    body: dict[str, Any]


class ScriptedModel:
    """The server. Attributes: ``base_url``, and ``requests`` in the order they came."""

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[ModelCall] = []
        self.connections = 0
        self._next_steps: deque[str] = deque()
        self._released: dict[str, trio.Event] = {}
        self._holding: dict[str, int] = {}
        self._hung_up = 0
        self._changed = trio.Condition()
        self._serial = 0

    def script(self, *steps: str) -> None:
        """Answer the next requests with these steps, whatever the user says."""
        self._next_steps.extend(steps)

    def release(self, name: str) -> None:
        """Let the hold NAME go on; may come before the hold is reached."""
        self._released.setdefault(name, trio.Event()).set()

    async def held(self, name: str) -> None:
        """Wait until a response is at the hold NAME."""
        async with self._changed:
            while not self._holding.get(name):
                await self._changed.wait()

    async def hung_up(self, count: int = 1) -> None:
        """Wait until ``count`` clients, in all, closed their connection before their response ended."""
        async with self._changed:
            while self._hung_up < count:
                await self._changed.wait()

    async def asked(self, count: int) -> None:
        """Wait until ``count`` requests, in all, have come."""
        async with self._changed:
            while len(self.requests) < count:
                await self._changed.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, as ``trio.serve_listeners`` calls it."""
        self.connections += 1
        http = _ServerConnection(stream)
        async with stream:
            try:
                while (request := await http.next_request()) is not None:
                    if not await self._answer(http, *request):
                        return
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                return

    async def _answer(self, http: _ServerConnection, request: h11.Request, raw: bytes) -> bool:
        """Answer one request; False if the connection must be closed."""
        target = request.target.decode("ascii", "replace")
        path = target.partition("?")[0].rstrip("/")
        wires: dict[str, type[Wire]] = {"responses": ResponsesWire, "completions": ChatWire}
        wire_class = wires.get(path.rpartition("/")[2])
        if wire_class is None:
            await http.send_json(404, {"error": {"message": f"no such path: {path}"}})
            return True
        try:
            body = json.loads(raw)
        except ValueError:
            await http.send_json(400, {"error": {"message": "the body is not JSON"}})
            return True
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        async with self._changed:
            self.requests.append(ModelCall(request.method.decode(), target, headers, body))
            self._changed.notify_all()
        self._serial += 1
        text, round_number = wire_class.where(body)
        step = step_of(text, round_number)
        if self._next_steps:
            step = self._next_steps.popleft()
        wire = wire_class(self._serial, round_number, body)
        good = False
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await http.wait_for_hang_up()
                async with self._changed:
                    self._hung_up += 1
                    self._changed.notify_all()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                good = await self._perform(http, wire, compile_step(step))
            except trio.BrokenResourceError:
                await trio.sleep_forever()  # watch sees the same and counts it
            nursery.cancel_scope.cancel()
        return good

    async def _perform(self, http: _ServerConnection, wire: Wire, pieces: list[Piece]) -> bool:
        begun = False
        pending = b""
        for piece in pieces:
            if isinstance(piece, Gate):
                if begun:
                    await http.send_data(pending)
                    pending = b""
                await self._hold(piece.name)
                continue
            if isinstance(piece, Hangup):
                if piece.status is not None:
                    await http.send_json(piece.status, piece.body, close=True)
                elif begun:
                    await http.send_data(pending)
                return False
            if not begun:
                begun = True
                await http.begin_events()
                pending = http.frame(wire.begin())
            for data in wire.render(piece):
                pending += http.frame(data)
                if len(pending) > 16_384:
                    await http.send_data(pending)
                    pending = b""
        await http.send_data(pending)
        await http.end_events()
        return True

    async def _hold(self, name: str) -> None:
        event = self._released.setdefault(name, trio.Event())
        try:
            async with self._changed:
                self._holding[name] = self._holding.get(name, 0) + 1
                self._changed.notify_all()
            await event.wait()
        finally:
            self._holding[name] -= 1
        self._released.pop(name, None)


class _ServerConnection:
    """HTTP/1.1 of one connection: h11 for what must be right, chunks by hand for what must be fast."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def next_request(self) -> tuple[h11.Request, bytes] | None:
        """The next request with its body; None when the client is done."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some(65_536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MOST_REQUEST_BYTES:
                    return None
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return request, bytes(body)
            else:
                return None

    async def wait_for_hang_up(self) -> None:
        """Return when the client has closed; what it sends meanwhile is kept."""
        try:
            while data := await self._stream.receive_some(65_536):
                self._http.receive_data(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def send_json(self, status: int, body: Any, *, close: bool = False) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(raw)))]
        if close:
            headers.append(("connection", "close"))
        out = self._http.send(h11.Response(status_code=status, headers=headers, reason=b"Scripted"))
        out += self._http.send(h11.Data(data=raw))
        out += self._http.send(h11.EndOfMessage())
        await self._stream.send_all(out)

    async def begin_events(self) -> None:
        headers = [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]
        out = self._http.send(h11.Response(status_code=200, headers=headers, reason=b"OK"))
        await self._stream.send_all(out)

    @staticmethod
    def frame(data: bytes) -> bytes:
        """One HTTP chunk per event, as real servers send them."""
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    async def send_data(self, framed: bytes) -> None:
        if framed:
            await self._stream.send_all(framed)

    async def end_events(self) -> None:
        await self._stream.send_all(self._http.send(h11.EndOfMessage()) or b"")


@asynccontextmanager
async def open_scripted_model(nursery: trio.Nursery, port: int = 0) -> AsyncGenerator[ScriptedModel, None]:
    """A scripted model on 127.0.0.1; its task lives in ``nursery`` until the context is left."""
    model = ScriptedModel()
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    model.base_url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
    scope = trio.CancelScope()

    async def serve(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        with scope:
            await trio.serve_listeners(model.serve, listeners, task_status=task_status)

    await nursery.start(serve)
    try:
        yield model
    finally:
        scope.cancel()
        for listener in listeners:
            listener.socket.close()


async def _main(port: int) -> None:
    async with trio.open_nursery() as nursery, open_scripted_model(nursery, port) as model:
        print(model.base_url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(_main, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    except KeyboardInterrupt:
        sys.exit(0)
