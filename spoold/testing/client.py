"""A client of a simulated daemon: says what the test says, keeps what comes, can go away at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from protocol.base import encode
from spoold.client import ConnectionLost, RpcFailed
from spoold.testing.channel import MemoryChannel
from spoold.testing.client_state import ClientState

if TYPE_CHECKING:
    from spoold.testing.world import SimulatedDaemon, World

Json = dict[str, Any]

ATTACHES = ("thread/start", "thread/resume", "thread/fork")
"""Methods whose answer attaches who has asked."""
_DETACHES = ("thread/closed", "thread/archived", "thread/deleted")


class Pending:
    """A request that was sent. ``done`` is set when its answer has come, or never will."""

    def __init__(self, method: str, params: Json) -> None:
        self.method = method
        self.params = params
        self.done = trio.Event()
        self.answer: Json | None = None
        self.lost_with: int | None = None

    def settle(self, answer: Json | None) -> None:
        """It is answered; None: the connection has ended before."""
        self.answer = answer
        self.done.set()

    async def result(self) -> Any:
        """Wait for the answer.

        Raises:
            spoold.client.RpcFailed: it is an error.
            spoold.client.ConnectionLost: there will be none.
        """
        await self.done.wait()
        if self.answer is None:
            raise ConnectionLost(self.lost_with)
        if "error" in self.answer:
            raise RpcFailed(self.answer["error"])
        return self.answer["result"]


class SimulatedClient:
    """One client program; its connections come and go.

    Attributes:
        name: in the trace, and as ``clientInfo.name``.
        log: every message that came, over all connections, in order.
        threads: what it shows of each thread that it has attached to, by id; see ``ClientState``.
        attached: ids of the threads that it is attached to over this connection.
        closed: code and reason of the last connection's end, None while it is open or there was none.
    """

    def __init__(self, daemon: SimulatedDaemon, name: str) -> None:
        self.name = name
        self.log: list[Json] = []
        self.threads: dict[str, ClientState] = {}
        self.attached: set[str] = set()
        self.closed: tuple[int, str] | None = None
        self._daemon = daemon
        self._channel: MemoryChannel | None = None
        self._pending: dict[int, Pending] = {}
        self._next_id = 1
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def connected(self) -> bool:
        """Whether there is a connection that neither side has ended."""
        return self._channel is not None

    def of(self, world: World) -> bool:
        """Whether it is a client of this world's daemon."""
        return self._daemon is world.daemon

    # -- connections ------------------------------------------------------------------------------------

    async def connect(self, **capabilities: Any) -> Json:
        """Connect and shake hands; gives the result of ``initialize``.

        Raises:
            ConnectionRefusedError: no daemon runs.
        """
        assert self._channel is None, f"{self.name} is connected"
        trace = self._daemon.trace
        channel = self._daemon.open_channel(self.name, lambda data: trace.note(f"{self.name} <", data))
        self._channel, self.closed = channel, None
        self._daemon.nursery.start_soon(self._read, channel)
        info = {"name": self.name, "version": "1"}
        wanted = {"experimentalApi": True, **capabilities}
        result: Json = await self.call("initialize", clientInfo=info, capabilities=wanted)
        return result

    async def disconnect(self, *, lose: bool = False) -> None:
        """Go away without a word. ``lose``: what was sent and not read is lost.

        On return nothing comes any more; the daemon may not know yet.
        """
        channel = self._channel
        if channel is not None:
            self._daemon.trace.note(f"{self.name} leaves")
            self._end(channel)
            channel.vanish(lose=lose)
        await trio.lowlevel.checkpoint()

    def stop_reading(self) -> None:
        """From now on nothing is taken from the connection; it waits in the daemon, while that lets it."""
        if self._channel is not None:
            self._channel.stop_reading()

    def go_on_reading(self) -> None:
        """Read what waits."""
        if self._channel is not None:
            self._channel.go_on_reading()

    # -- saying something -------------------------------------------------------------------------------

    def send(self, method: str, **params: Any) -> Pending:
        """Send a request and go on.

        Raises:
            spoold.client.ConnectionLost: there is no connection.
        """
        pending = Pending(method, params)
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._say({"id": request_id, "method": method, "params": params})
        self._pending[request_id] = pending
        return pending

    async def call(self, method: str, **params: Any) -> Any:
        """Send a request and wait for its result; see ``Pending.result``."""
        return await self.send(method, **params).result()

    def answer(
        self, request: Mapping[str, Any], result: Any = None, *, error: Mapping[str, Any] | None = None
    ) -> None:
        """Answer a server request that is in ``log``; ``error``: with an error, its code and message."""
        answer = {"result": result} if error is None else {"error": error}
        self._say({"id": request["id"], **answer})

    async def start_thread(self, **params: Any) -> str:
        """thread/start: the new thread's id."""
        thread_id: str = (await self.call("thread/start", **params))["thread"]["id"]
        return thread_id

    async def start_turn(self, thread_id: str, text: str, **params: Any) -> str:
        """turn/start with this text: the turn's id."""
        said = [{"type": "text", "text": text}]
        turn = await self.call("turn/start", threadId=thread_id, input=said, **params)
        turn_id: str = turn["turn"]["id"]
        return turn_id

    def _say(self, message: Json) -> None:
        if self._channel is None:
            raise ConnectionLost
        data = encode(message)
        self._daemon.trace.note(f"{self.name} >", data)
        self._channel.raw(data)

    # -- hearing something ------------------------------------------------------------------------------

    async def wait_for(self, held: Callable[[Json], bool], since: int = 0) -> Json:
        """Wait for a message, the first one of ``log[since:]`` for which ``held`` is true.

        Raises:
            spoold.client.ConnectionLost: it is not there, and nothing comes any more.
        """
        while True:
            for number in range(since, len(self.log)):
                if held(self.log[number]):
                    return self.log[number]
            since = len(self.log)
            if self._channel is None:
                raise ConnectionLost(None if self.closed is None else self.closed[0])
            await self._changed.park()

    async def notification(self, method: str, since: int = 0, **members: Any) -> Json:
        """Wait for a notification whose params have these members; its params."""
        message = await self.wait_for(
            lambda each: (
                each.get("method") == method
                and "id" not in each
                and members.items() <= each["params"].items()
            ),
            since,
        )
        params: Json = message["params"]
        return params

    async def server_request(self, method: str, since: int = 0) -> Json:
        """Wait for a request of the daemon; the whole message, for ``answer``."""
        return await self.wait_for(lambda each: each.get("method") == method and "id" in each, since)

    async def turn_ended(self, turn_id: str) -> Json:
        """Wait for the end of a turn; the turn."""
        message = await self.wait_for(
            lambda each: each.get("method") == "turn/completed" and each["params"]["turn"]["id"] == turn_id
        )
        turn: Json = message["params"]["turn"]
        return turn

    async def _read(self, channel: MemoryChannel) -> None:
        try:
            while True:
                data = await channel.receive_sent()
                if self._channel is not channel:
                    return  # it was on its way when the client left
                self._heard(json.loads(data))
        except (trio.EndOfChannel, trio.ClosedResourceError):
            if self._channel is channel:
                self._end(channel)

    def _end(self, channel: MemoryChannel) -> None:
        self._channel = None
        self.closed = channel.closed
        self.attached.clear()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            each.lost_with = None if self.closed is None else self.closed[0]
            each.settle(None)
        self._changed.unpark_all()

    def _heard(self, message: Json) -> None:
        self.log.append(message)
        if "method" in message:
            for thread_id in sorted(self.attached):
                self.threads[thread_id].message(message)
            if message["method"] in _DETACHES:
                self.attached.discard(message["params"]["threadId"])
        elif message["id"] is not None:  # without one it is about what was no request
            pending = self._pending.pop(message["id"])
            if "result" in message:
                self._attach(pending, message["result"])
            pending.settle(message)
        self._changed.unpark_all()

    def _attach(self, pending: Pending, result: Json) -> None:
        if pending.method == "thread/unsubscribe":
            self.attached.discard(pending.params["threadId"])
        elif pending.method in ATTACHES:
            thread_id = result["thread"]["id"]
            self.threads.setdefault(thread_id, ClientState(thread_id)).attached(result)
            self.attached.add(thread_id)
