"""A model in memory that does what the test says, in the language of ``spoold.testing.model_script``."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio

from agent.model import failures
from agent.model.events import (
    ModelClient,
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ReasoningSummaryPart,
    ReasoningTextDelta,
    ResponseCompleted,
    ResponseItem,
    TextDelta,
)
from agent.model.provider import ProviderConfig, find_provider
from persistence.config import Config
from protocol.base import encode
from protocol.runtime import Runtime
from protocol.threads import TokenCounts
from spoold.model_clients import ModelClients
from spoold.testing.model_script import (
    Call,
    End,
    Gate,
    Hangup,
    Piece,
    Reasoning,
    Text,
    compile_step,
    step_of,
    where,
    words_of,
)

_URL = "memory:/responses"


class InMemoryModel:
    """Every provider of a simulated daemon. It outlives the daemon's crashes, as a real one does.

    Attributes:
        requests: what it was asked, in order.
    """

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []
        self._next_steps: deque[str] = deque()
        self._released: dict[str, trio.Event] = {}
        self._holding: dict[str, int] = {}
        self._changed = trio.lowlevel.ParkingLot()

    def script(self, *steps: str) -> None:
        """Answer the next requests with these steps, whatever the user says."""
        self._next_steps.extend(steps)

    def release(self, name: str) -> None:
        """Let the hold NAME go on; may come before the hold is reached."""
        self._released.setdefault(name, trio.Event()).set()

    def holding(self) -> list[str]:
        """The holds at which a response waits."""
        return sorted(name for name, count in self._holding.items() if count)

    async def held(self, name: str) -> None:
        """Wait until a response is at the hold NAME."""
        while not self._holding.get(name):
            await self._changed.park()

    async def asked(self, count: int) -> None:
        """Wait until ``count`` requests, in all, have come."""
        while len(self.requests) < count:
            await self._changed.park()

    # -- ``ModelClient`` --------------------------------------------------------------------------------

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent], None]:
        """One answer; see ``ModelClient.stream``."""
        self.requests.append(request)
        serial = len(self.requests)
        self._changed.unpark_all()
        text, round_number = where(request.input)
        step = self._next_steps.popleft() if self._next_steps else step_of(text, round_number)
        pieces = compile_step(step)
        await trio.lowlevel.checkpoint()
        while pieces and isinstance(pieces[0], Gate):
            await self._hold(pieces.pop(0).name)  # type: ignore[union-attr]
        if isinstance(pieces[0], Hangup) and pieces[0].status is not None:
            body = pieces[0].body if isinstance(pieces[0].body, bytes) else encode(pieces[0].body)
            raise failures.http_failure(pieces[0].status, body.decode(), _URL, {}, 0)
        async with aclosing(self._events(_Answer(serial, round_number), pieces)) as events:
            yield events

    async def prepare(self) -> None:
        """Nothing is needed."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Nothing is open."""
        await trio.lowlevel.checkpoint()

    async def _events(self, answer: _Answer, pieces: list[Piece]) -> AsyncGenerator[ModelEvent, None]:
        for piece in pieces:
            if isinstance(piece, Gate):
                await self._hold(piece.name)
                continue
            for event in answer.events(piece):
                await trio.lowlevel.checkpoint()
                yield event

    async def _hold(self, name: str) -> None:
        event = self._released.setdefault(name, trio.Event())
        self._holding[name] = self._holding.get(name, 0) + 1
        self._changed.unpark_all()
        try:
            await event.wait()
        finally:
            self._holding[name] -= 1
        self._released.pop(name, None)


class _Answer:
    """Pieces as events, with ids that no other answer has."""

    def __init__(self, serial: int, round_number: int) -> None:
        self._serial = serial
        self._round = round_number
        self._items = 0
        self._said: list[str] = []

    def events(self, piece: Piece) -> Iterator[ModelEvent]:
        match piece:
            case Text():
                yield from self._message(piece)
            case Reasoning():
                yield from self._reasoning(piece)
            case Call():
                call: ResponseItem = {
                    "type": "function_call",
                    "id": self._id("fc"),
                    "call_id": f"call_r{self._round}_{self._serial}_{self._items}",
                    "name": piece.name,
                    "arguments": piece.arguments,
                }
                self._items += 1
                yield OutputItemStarted({**call, "arguments": ""})
                yield OutputItemDone(call)
            case End():
                yield from self._end(piece)
            case Hangup():
                raise failures.stream_broke(failures.TRANSPORT_CUT)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._serial}_{self._items}"

    def _message(self, piece: Text) -> Iterator[ModelEvent]:
        item_id = self._id("msg")
        item: ResponseItem = {"type": "message", "role": "assistant", "id": item_id, "content": []}
        if piece.phase:
            item["phase"] = piece.phase
        if piece.start:
            self._said = []
            yield OutputItemStarted(item)
        for delta in piece.deltas:
            self._said.append(delta)
            yield TextDelta(item_id, delta)
        if piece.done:
            self._items += 1
            content = [{"type": "output_text", "text": "".join(self._said), "annotations": []}]
            yield OutputItemDone({**item, "content": content})

    def _reasoning(self, piece: Reasoning) -> Iterator[ModelEvent]:
        item_id = self._id("rs")
        item: ResponseItem = {"type": "reasoning", "id": item_id, "summary": []}
        yield OutputItemStarted(item)
        if piece.raw:
            for word in words_of(piece.text):
                yield ReasoningTextDelta(item_id, 0, word)
            item = {**item, "content": [{"type": "reasoning_text", "text": piece.text}]}
        else:
            yield ReasoningSummaryPart(item_id, 0)
            for word in words_of(piece.text):
                yield ReasoningSummaryDelta(item_id, 0, word)
            item = {**item, "summary": [{"type": "summary_text", "text": piece.text}]}
        self._items += 1
        yield OutputItemDone({**item, "encrypted_content": f"sealed:{self._serial}"})

    def _end(self, piece: End) -> Iterator[ModelEvent]:
        match piece.kind:
            case "completed":
                usage = TokenCounts(
                    total_tokens=piece.total_tokens,
                    input_tokens=piece.total_tokens - 5,
                    cached_input_tokens=2,
                    output_tokens=5,
                    reasoning_output_tokens=1,
                )
                yield ResponseCompleted(f"resp_{self._serial}", usage)
            case "failed":
                raise failures.response_failed(piece.code, piece.message)
            case "incomplete":
                raise failures.incomplete(piece.code)
            case _:
                raise failures.stream_broke(failures.CLOSED_EARLY)


class InMemoryModels(ModelClients):
    """Gives every turn the same model, with the retry settings of its provider."""

    def __init__(self, config: Config, runtime: Runtime, model: InMemoryModel) -> None:
        super().__init__(config, runtime)
        self._tables: Any = config.values.get("model_providers", {})
        self._model = model

    def client(self, provider: str) -> tuple[ProviderConfig, ModelClient]:
        """See ``ModelClients.client``."""
        return find_provider(provider, self._tables), self._model
