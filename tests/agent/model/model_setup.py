"""What the tests of this folder share: a runtime that counts, requests, and servers that send raw bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from agent.model.events import ModelClient, ModelEvent, ModelRequest
from agent.model.provider import ProviderConfig, open_client
from agent.model.retry import stream_with_retries
from protocol.errors import TurnFailure
from protocol.threads import TurnError


class CountingRuntime:
    """Ids 0001, 0002, ...; chance is always one half; time stands still."""

    def __init__(self) -> None:
        self.ids = 0

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic(self) -> float:
        return 0.0

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:04}"

    def random(self) -> float:
        return 0.5

    def local_time(self, at_ms: int) -> str:
        return "2026-01-01T00-00-00"


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def asking(text: str, **more: Any) -> ModelRequest:
    return ModelRequest(model="test-model", instructions="Be brief.", input=[said(text)], **more)


def provider(base_url: str, **table: Any) -> ProviderConfig:
    """A provider that gives up at once, unless the table says otherwise."""
    patience = {"request_max_retries": 0, "stream_max_retries": 0, "stream_idle_timeout_ms": 20_000}
    return ProviderConfig.from_table("local", {"base_url": base_url, **patience, **table})


@asynccontextmanager
async def client_for(
    base_url: str, environ: Mapping[str, str] | None = None, **table: Any
) -> AsyncIterator[ModelClient]:
    client = open_client(provider(base_url, **table), environ or {}, CountingRuntime())
    try:
        yield client
    finally:
        await client.aclose()


async def answer(client: ModelClient, request: ModelRequest) -> list[ModelEvent]:
    """All events of one attempt."""
    async with client.stream(request) as events:
        return [event async for event in events]


async def failing(client: ModelClient, request: ModelRequest) -> tuple[list[ModelEvent], TurnFailure]:
    """The events before the failure, and the failure."""
    seen: list[ModelEvent] = []
    try:
        async with client.stream(request) as events:
            async for event in events:
                seen.append(event)
    except TurnFailure as failure:
        return seen, failure
    raise AssertionError(f"did not fail, but sent {seen}")


class Retried:
    """One turn's model call with retries: what came, what was announced, how it failed."""

    def __init__(self) -> None:
        self.events: list[ModelEvent] = []
        self.announced: list[TurnError] = []
        self.failure: TurnFailure | None = None

    async def run(
        self,
        client: ModelClient,
        request: ModelRequest | Callable[[], ModelRequest],
        config: ProviderConfig,
    ) -> Retried:
        async def on_retry(error: TurnError) -> None:
            self.announced.append(error)

        try:
            async with stream_with_retries(client, request, config, CountingRuntime(), on_retry) as events:
                async for event in events:
                    self.events.append(event)
        except TurnFailure as failure:
            self.failure = failure
        return self


@asynccontextmanager
async def raw_server(nursery: trio.Nursery, *answers: bytes, keep_open: bool = False) -> AsyncIterator[str]:
    """A base_url where the n-th connection is sent ``answers[n]`` (the last one for all others)."""
    served = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal served
        raw = answers[min(served, len(answers) - 1)]
        served += 1
        head = b""
        try:
            async with stream:
                while b"\r\n\r\n" not in head:
                    head += await stream.receive_some(65_536)
                # All of the request: closing with a part of it unread would reset the connection.
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
                missing = length - len(head.partition(b"\r\n\r\n")[2])
                while missing > 0 and (more := await stream.receive_some(65_536)):
                    missing -= len(more)
                await stream.send_all(raw)
                if keep_open:
                    await trio.sleep_forever()
        except trio.BrokenResourceError:
            return  # the client has heard enough

    scope = trio.CancelScope()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def listen(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        with scope:
            await trio.serve_listeners(serve, listeners, task_status=task_status)

    await nursery.start(listen)
    try:
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
    finally:
        scope.cancel()


def event_stream(body: bytes, content_type: str = "text/event-stream") -> bytes:
    """A whole HTTP response, its body ended by its length."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
