"""What the tests of a turn stand on: a runtime, a recording and answering port, a scripted model."""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from agent.events import (
    ClientToolCall,
    CommandApproval,
    ContextAppended,
    ItemCompleted,
    ItemDelta,
    ItemStarted,
    Question,
    Submission,
    TurnEvent,
    TurnJob,
    TurnOutcome,
    TurnSettings,
    UsageKnown,
)
from agent.model.events import (
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ResponseCompleted,
    ResponseItem,
    TextDelta,
)
from agent.tools.exec_command import ExecCommand
from agent.tools.request_user_input import RequestUserInput
from agent.tools.sandbox import SandboxProbe, SandboxStatus
from agent.tools.terminals import Terminals
from agent.tools.toolset import ToolSet
from agent.turn import TurnControl, run_turn
from protocol.items import CommandExecutionItem
from protocol.settings import DangerFullAccess
from protocol.threads import TokenCounts, TurnError
from protocol.user_input import TextInput

Step = ModelEvent | trio.Event | Exception


class SeededRuntime:
    """Real clocks, seeded chance, countable ids."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._ids = 0

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self) -> str:
        self._ids += 1
        return f"00000000-0000-7000-8000-{self._ids:012d}"

    def random(self) -> float:
        return self._random.random()

    def local_time(self, at_ms: int) -> str:
        return "2026-11-20T12-00-00"


class Port:
    """Records what a turn posts. ``answers`` go to the questions, in order; an Event is waited for first."""

    def __init__(self, *answers: Any) -> None:
        self.events: list[TurnEvent] = []
        self.questions: list[Question[Any]] = []
        self._answers = deque(answers)
        self._news = trio.Event()

    async def post(self, event: TurnEvent) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._record(event)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def ask(self, question: Question[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        self.questions.append(question)
        if isinstance(question, CommandApproval | ClientToolCall):
            self._record(ItemStarted(question.item))
        answer = self._answers.popleft()
        while isinstance(answer, trio.Event):
            await answer.wait()
            answer = self._answers.popleft()
        return answer

    def _record(self, event: TurnEvent) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def until(self, wanted: Callable[[TurnEvent], bool]) -> TurnEvent:
        """The first event that is wanted, waiting for it if need be."""
        with trio.fail_after(20):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                await self._news.wait()

    def log(self) -> list[str]:
        """The events in short, without the user's message and the context."""
        return [short for event in self.events if (short := _short(event))]

    def commands(self) -> list[CommandExecutionItem]:
        """The finished commands."""
        items = [event.item for event in self.events if isinstance(event, ItemCompleted)]
        return [item for item in items if isinstance(item, CommandExecutionItem)]


def _short(event: TurnEvent) -> str:
    if isinstance(event, ItemStarted | ItemCompleted):
        word = "started" if isinstance(event, ItemStarted) else "completed"
        status = f" {event.item.status}" if isinstance(event.item, CommandExecutionItem) else ""
        return f"{word} {event.item.type}{status}"
    if isinstance(event, ItemDelta):
        return f"delta {event.delta!r}"
    # What a call costs is told early only if the call still runs: a matter of moments.
    return "" if isinstance(event, ContextAppended | UsageKnown) else type(event).__name__


class ScriptedModel:
    """Plays one list of steps per request: events are streamed, Events waited for, exceptions raised."""

    def __init__(self, *responses: list[Step]) -> None:
        self._responses = deque(responses)
        self.requests: list[ModelRequest] = []
        self.closed = 0
        self.retried: list[TurnError] = []

    @asynccontextmanager
    async def __call__(
        self, request: Callable[[], ModelRequest], on_retry: Callable[[TurnError], Awaitable[None]]
    ) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        self._build = request
        self.requests.append(request())
        try:
            async with aclosing(self._play(self._responses.popleft())) as events:
                yield events
        finally:
            self.closed += 1

    async def _play(self, steps: list[Step]) -> AsyncGenerator[ModelEvent, None]:
        for step in steps:
            await trio.lowlevel.checkpoint()
            if isinstance(step, trio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                yield step

    def outputs(self, request: int = -1) -> list[str]:
        """What the model was told about its calls."""
        return [item["output"] for item in self.requests[request].input if item["type"].endswith("_output")]

    def user_texts(self, request: int = -1) -> list[str]:
        """What the model was told by the user, without the framing messages."""
        messages = [item for item in self.requests[request].input if item.get("role") == "user"]
        texts = [message["content"][0]["text"] for message in messages]
        return [text for text in texts if not text.startswith("<")]


def message(item_id: str, text: str) -> ResponseItem:
    """A finished message of the model."""
    return {
        "type": "message",
        "role": "assistant",
        "id": item_id,
        "content": [{"type": "output_text", "text": text}],
    }


def opened(item_id: str) -> OutputItemStarted:
    """The start of a message."""
    return OutputItemStarted({"type": "message", "role": "assistant", "id": item_id, "content": []})


def say(text: str, item_id: str = "msg-1") -> list[Step]:
    """A whole response: one message."""
    return [opened(item_id), TextDelta(item_id, text), OutputItemDone(message(item_id, text)), completed()]


def call(call_id: str, **arguments: Any) -> OutputItemDone:
    """A call of exec_command."""
    return named_call(call_id, "exec_command", json.dumps(arguments))


def named_call(call_id: str, name: str, arguments: str) -> OutputItemDone:
    """A call of any tool."""
    return OutputItemDone({"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})


def completed(response_id: str = "resp-1") -> ResponseCompleted:
    """The end of a response."""
    return ResponseCompleted(response_id, TokenCounts(total_tokens=15, input_tokens=10, output_tokens=5))


def submission(text: str, item_id: str = "user-1") -> Submission:
    """A message of the user."""
    return Submission(item_id, [TextInput(text=text)])


class FixedProbe(SandboxProbe):
    """A sandbox that is said to work, or not."""

    def __init__(self, status: SandboxStatus) -> None:
        super().__init__()
        self._status = status


@dataclass
class Stage:
    """One turn and all around it."""

    terminals: Terminals
    cwd: str
    port: Port = field(default_factory=Port)
    runtime: SeededRuntime = field(default_factory=SeededRuntime)
    control: TurnControl = field(default_factory=TurnControl)
    probe: SandboxProbe = field(default_factory=SandboxProbe)
    environment: dict[str, str] = field(default_factory=dict)

    def job(self, text: str = "hello", **settings: Any) -> TurnJob:
        chosen: dict[str, Any] = {
            "approval_policy": "never",
            "sandbox_policy": DangerFullAccess(),
            **settings,
        }
        return TurnJob(
            thread_id="thread",
            turn_id="turn",
            submissions=[submission(text)],
            context=[],
            settings=TurnSettings(model="scripted", cwd=self.cwd, **chosen),
        )

    async def run(self, model: ScriptedModel, job: TurnJob | None = None, **settings: Any) -> TurnOutcome:
        tools = ToolSet([ExecCommand(self.terminals, self.probe, self.environment), RequestUserInput()])
        with trio.fail_after(30):
            return await run_turn(
                job or self.job(**settings), self.port, model, tools, self.runtime, self.control
            )

    async def command(self, cmd: str, *, settings: dict[str, Any] | None = None, **arguments: Any) -> str:
        """What the model is told about one command."""
        model = ScriptedModel([call("call-1", cmd=cmd, **arguments), completed()], say("done"))
        outcome = await self.run(model, **(settings or {}))
        assert outcome == TurnOutcome(), outcome
        return model.outputs()[0]
