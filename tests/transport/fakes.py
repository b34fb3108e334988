"""Stand-ins for what is above and below the transport: a daemon, a method table, a channel in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import spoold.testing.channel
from actors.peer import Delta, Outgoing, Peer
from protocol.errors import InvalidRequest
from protocol.initialize import InitializeParams, InitializeResult
from protocol.jsonrpc import Response, encode_notification
from protocol.thread_methods import Empty, LoadedListParams, ThreadIdParams, ThreadStartParams
from transport.connection import Gateway, Limits
from transport.handshake import initialize
from transport.method import Call, Method, MethodTable

INITIALIZE = {"clientInfo": {"name": "tester", "version": "1"}}


class FakeRuntime:
    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000

    def new_id(self) -> str:
        raise AssertionError("the transport makes no ids")

    def random(self) -> float:
        raise AssertionError("the transport draws no numbers")

    def local_time(self, at_ms: int) -> str:
        raise AssertionError("the transport asks for no local time")


@dataclass
class FakeDaemon:
    version: str = "9.9"
    home: Path = Path("/home/of/daemon")
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    ready: list[Peer] = field(default_factory=list)
    gone: list[Peer] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)
    shutdowns: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    release: trio.Event = field(default_factory=trio.Event)

    def _note(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def peer_ready(self, peer: Peer) -> None:
        self.ready.append(peer)
        self._note()

    def peer_gone(self, peer: Peer) -> None:
        self.gone.append(peer)
        self._note()

    def answer(self, peer: Peer, response: Response) -> None:
        self.answers.append(response)
        self._note()

    def request_shutdown(self, reason: str) -> None:
        self.shutdowns.append(reason)
        self._note()

    async def until(self, what: Any) -> None:
        with trio.fail_after(30):
            while not what():
                await self.changed.wait()


def _note(call: Call) -> FakeDaemon:
    daemon: FakeDaemon = call.daemon  # type: ignore[assignment]
    daemon.calls.append(call)
    daemon._note()
    return daemon


def _echo(call: Call) -> dict[str, Any]:
    _note(call)
    return {"method": call.method}


def _hold(call: Call) -> None:
    _note(call)


async def _wait(call: Call) -> dict[str, Any]:
    await _note(call).release.wait()
    return {"waited": True}


async def _refused(call: Call) -> None:
    _note(call)
    async with trio.open_nursery():
        raise InvalidRequest("refused by a nursery")


def _bug(call: Call) -> None:
    _note(call)
    raise ZeroDivisionError("a secret detail")


def _no_json(call: Call) -> Any:
    return {"value": object()}


def method_table() -> MethodTable:
    rows = [
        Method(
            "initialize", InitializeParams, InitializeResult, "connection", "stable", "inline", initialize
        ),
        Method(
            "thread/start",
            ThreadStartParams,
            Empty,
            "daemon",
            "stable",
            "inline",
            _echo,
            ("historyMode", "experimentalRawEvents"),
        ),
        Method("thread/loaded/list", LoadedListParams, Empty, "daemon", "stable", "inline", _echo),
        Method("thread/read", ThreadIdParams, Empty, "thread", "stable", "inline", _echo),
        Method("thread/queue/list", ThreadIdParams, Empty, "thread", "experimental", "inline", _echo),
        Method("test/hold", Empty, Empty, "thread", "stable", "thread", _hold),
        Method("test/wait", Empty, Empty, "daemon", "stable", "task", _wait),
        Method("test/refused", Empty, Empty, "daemon", "stable", "task", _refused),
        Method("test/bug", Empty, Empty, "daemon", "stable", "inline", _bug),
        Method("test/noJson", Empty, Empty, "daemon", "stable", "inline", _no_json),
    ]
    return {row.name: row for row in rows}


def gateway(limits: Limits | None = None) -> tuple[FakeDaemon, Gateway]:
    daemon = FakeDaemon()
    return daemon, Gateway(daemon, method_table(), limits or Limits())


class MemoryChannel(spoold.testing.channel.MemoryChannel):
    """A channel whose client is the test."""

    def request(self, request_id: Any, method: str, *params: Any) -> None:
        message = {"id": request_id, "method": method}
        if params:
            message["params"] = params[0]
        self.raw(json.dumps(message).encode())

    async def wait_ended(self) -> None:
        with trio.fail_after(30):
            await self.ended.wait()

    async def message(self) -> dict[str, Any]:
        with trio.fail_after(30):
            return json.loads(await self.receive_sent())

    async def call(self, method: str, *params: Any) -> dict[str, Any]:
        self.request(1, method, *params)
        return await self.message()

    async def initialize(self, **capabilities: Any) -> dict[str, Any]:
        return await self.call("initialize", {**INITIALIZE, "capabilities": capabilities})


def note(method: str, params: dict[str, Any] | None = None) -> Outgoing:
    return Outgoing(encode_notification(method, params or {}, 5), method)


def delta(text: str, key: tuple[object, ...] = ("item",), at_ms: int = 5, seq: int | None = None) -> Outgoing:
    params = {"itemId": str(key), "delta": text}
    data = encode_notification("item/agentMessage/delta", params, at_ms, seq=seq)
    return Outgoing(data, "item/agentMessage/delta", Delta(key, params, text, at_ms, seq))
