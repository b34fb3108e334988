"""One turn: from the user's messages to the model's last word.

Theory. A turn is a loop of model responses. While one streams, its items are posted as they come and each
finished tool call starts at once; the response is over when the stream and all its calls have ended. Then the
model is asked again if there were calls, or if the user has said something new.

Three things may cut in, and they differ in what they cut:

* A *steer* cuts the stream only: the cancel scope around the stream. Calls that have begun run to their end,
  since the model must be told how they ended. Nothing awaits between "no steer is waiting" and the opening of
  that scope, so a steer is either taken before the request or cuts it.
* The answer ``cancel`` to an approval cuts the response: the nursery that holds its calls.
* An *interrupt* cuts everything: the actor cancels the scope of the whole turn. Nothing is posted after that;
  commands stay with their terminals.

The turn keeps its own copy of the model context. An item enters it after its event has been handed over, with
no await in between, so the copy and what the actor keeps never differ.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import trio

from agent.context import call_output, input_text, mended, message_text, user_message
from agent.events import (
    ContextAppended,
    ContextWindowFilled,
    ItemCompleted,
    ItemDelta,
    ItemStarted,
    ModelResponded,
    ReasoningPart,
    Retrying,
    Submission,
    TurnJob,
    TurnOutcome,
    TurnPort,
    UsageKnown,
)
from agent.model.events import (
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ReasoningSummaryPart,
    ReasoningTextDelta,
    ResponseCompleted,
    ResponseItem,
    StreamRestarted,
    TextDelta,
)
from agent.prompt import completed_message, instructions, opening
from agent.tools.command_policy import Grants
from agent.tools.dynamic_tools import DynamicTool, model_name
from agent.tools.goal_tools import GetGoal, UpdateGoal
from agent.tools.toolset import Tool, ToolCall, ToolSet, ToolTurn
from protocol.errors import TurnFailure
from protocol.items import AgentMessageItem, ReasoningItem, ThreadItem
from protocol.runtime import Runtime
from protocol.threads import TurnError

_log = logging.getLogger(__name__)

StreamModel = Callable[
    [Callable[[], ModelRequest], Callable[[TurnError], Awaitable[None]]],
    AbstractAsyncContextManager[AsyncIterator[ModelEvent]],
]
"""A model with its retries: ``agent.model.retry.stream_with_retries`` with everything but the request (a
function, called for each attempt) and ``on_retry`` filled in."""

_CLOSED_EARLY = "stream disconnected before completion: stream closed before response.completed"


class TurnControl:
    """The actor's hand on a running turn. Everything here is synchronous.

    Attributes:
        unconsumed: submissions that were steered in and not taken yet. What is left here when the turn has
            ended was never seen by the model; it belongs to the actor again.
        notes: what the daemon itself tells the model before its next response, unseen by the user. They cut
            nothing off, and are lost if there is no next response.
    """

    def __init__(self) -> None:
        self.unconsumed: list[Submission] = []
        self.notes: list[str] = []
        self._stream: trio.CancelScope | None = None

    def steer(self, submission: Submission) -> None:
        """Give the running turn another message; a model stream in progress is abandoned."""
        self.unconsumed.append(submission)
        if self._stream is not None:
            self._stream.cancel()

    @contextmanager
    def _streaming(self) -> Iterator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self._stream = scope
            try:
                yield scope
            finally:
                self._stream = None


async def run_turn(
    job: TurnJob,
    port: TurnPort,
    model: StreamModel,
    tools: ToolSet,
    runtime: Runtime,
    control: TurnControl,
) -> TurnOutcome:
    """Run one turn to its end.

    Returns how it ended: well, with the error of a failed model, or because the user said so in answer to a
    question. Anything unexpected is raised. Cancelled: nothing is posted any more, the model's stream is
    closed, commands that run stay with their terminals.
    """
    async with trio.open_nursery() as lingering:
        turn = _Turn(job, port, model, tools, runtime, control, lingering)
        outcome = await turn.run()
        lingering.cancel_scope.cancel()
    return outcome


class _Turn:
    """The loop, and what lives as long as the turn."""

    def __init__(
        self,
        job: TurnJob,
        port: TurnPort,
        model: StreamModel,
        tools: ToolSet,
        runtime: Runtime,
        control: TurnControl,
        lingering: trio.Nursery,
    ) -> None:
        self.job, self.port, self.model = job, port, model
        self.tools = tools.with_tools(_own_tools(job))
        self.runtime, self.control = runtime, control
        settings = job.settings
        grants = Grants(set(settings.approved_commands), list(settings.approved_prefixes))
        self.tool_turn = ToolTurn(settings, port, runtime, grants, lingering)
        self.cancelled_by_user = False

    async def run(self) -> TurnOutcome:
        job = self.job
        messages = opening(job.context, job.settings, self.runtime, interrupted=job.interrupted_before)
        if job.opening_note is not None:
            messages = (*messages, user_message([input_text(job.opening_note)]))
        if messages:
            await self.append(messages)
        for submission in job.submissions:
            await self._take(submission)
        while True:
            while self.control.unconsumed:
                # Removed once it is posted: an interrupt in between leaves it with the actor.
                await self._take(self.control.unconsumed[0])
                del self.control.unconsumed[0]
            while self.control.notes:
                await self.append((user_message([input_text(self.control.notes.pop(0))]),))
            response = _Response(self)
            failure = await response.run()
            if self.cancelled_by_user:
                return TurnOutcome(cancelled_by_user=True)
            if failure is not None:
                return await self._failed(failure)
            if not response.calls and not self.control.unconsumed:
                return TurnOutcome()

    def request(self) -> ModelRequest:
        """The request for the context as it is now."""
        job, settings = self.job, self.job.settings
        return ModelRequest(
            model=settings.model,
            instructions=instructions(settings),
            input=mended(job.context),
            tools=self.tools.specs(),
            effort=settings.effort,
            summary=settings.summary,
            output_schema=settings.output_schema,
            cache_key=job.thread_id,
        )

    async def append(self, items: tuple[ResponseItem, ...]) -> None:
        """Context without an item of its own."""
        await self.port.post(ContextAppended(items))
        self.job.context.extend(items)

    async def complete(
        self, item: ThreadItem, context: ResponseItem, *, persist: bool = True, context_first: bool = False
    ) -> None:
        """A finished item and what of it enters the context."""
        await self.port.post(ItemCompleted(item, persist, (context,), context_first))
        self.job.context.append(context)

    async def _take(self, submission: Submission) -> None:
        if not submission.input:
            return
        event = await completed_message(submission, self.runtime.now_ms())
        await self.port.post(ItemStarted(event.item.model_copy(update={"completed_at_ms": None})))
        await self.port.post(event)
        self.job.context.extend(event.context)

    async def _failed(self, failure: TurnFailure) -> TurnOutcome:
        if failure.info == "contextWindowExceeded":
            await self.port.post(ContextWindowFilled())
        error = TurnError(
            message=failure.message, codex_error_info=failure.info, additional_details=failure.details
        )
        return TurnOutcome(error=error)


def _own_tools(job: TurnJob) -> list[Tool]:
    """The tools that only some turns have."""
    goal_tools: list[Tool] = [GetGoal(), UpdateGoal()] if job.has_goal else []
    return [*goal_tools, *(DynamicTool(each) for each in job.dynamic_tools)]


class _Response:
    """One response of the model and the calls in it.

    Attributes:
        calls: how many tool calls the model made that it has not been asked about since.
    """

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._port, self._runtime = turn.port, turn.runtime
        self.calls = 0
        # Items that were started and are not done, by id.
        self._open: dict[str, AgentMessageItem | ReasoningItem] = {}
        self._running = 0
        self._idle = trio.Event()
        self._end: ResponseCompleted | None = None

    async def run(self) -> TurnFailure | None:
        """Stream it, run its calls, report it. A steer ends the stream early, and is no failure."""
        failure: TurnFailure | None = None
        async with trio.open_nursery() as nursery:
            with self._turn.control._streaming() as scope:
                try:
                    await self._stream(nursery)
                except TurnFailure as caught:
                    # Calls that have begun end in their own time; only then has the response failed.
                    failure = caught
        if self._turn.cancelled_by_user:
            return None
        if self._end is not None:
            await self._port.post(ModelResponded(self._end.response_id, self._end.usage))
            return None
        if scope.cancel_called:
            # Steered. If the stream failed in the same moment, the next request will tell.
            return None
        return failure or TurnFailure(_CLOSED_EARLY)

    async def _stream(self, nursery: trio.Nursery) -> None:
        async with self._turn.model(self._turn.request, self._retrying) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    await self._port.post(ItemDelta("agentMessage", event.item_id, event.delta))
                elif isinstance(event, ResponseCompleted):
                    self._end = event
                    if self._running and event.usage is not None:
                        await self._port.post(UsageKnown(event.response_id, event.usage))
                    return
                else:
                    await self._rare(event, nursery)

    async def _rare(self, event: ModelEvent, nursery: trio.Nursery) -> None:
        """Every event that does not come by the thousand."""
        match event:
            case OutputItemStarted(item):
                await self._item_started(item)
            case OutputItemDone(item):
                await self._item_done(item, nursery)
            case ReasoningSummaryPart(item_id, index):
                await self._port.post(ReasoningPart(item_id, index))
            case ReasoningSummaryDelta(item_id, index, delta):
                await self._port.post(ItemDelta("reasoningSummary", item_id, delta, index))
            case ReasoningTextDelta(item_id, index, delta):
                await self._port.post(ItemDelta("reasoningText", item_id, delta, index))
            case StreamRestarted():
                await self._restart()
            case _:
                _log.warning("a model event that nobody knows: %r", event)

    async def _retrying(self, error: TurnError) -> None:
        await self._port.post(Retrying(error))

    async def _restart(self) -> None:
        """The response is asked for again, with what was done so far in the context."""
        self._open.clear()
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()
        self.calls = 0

    async def _item_started(self, item: ResponseItem) -> None:
        shown = _as_item(item, self._runtime.now_ms())
        if shown is not None:
            await self._port.post(ItemStarted(shown))
            self._open[shown.id] = shown

    async def _item_done(self, item: ResponseItem, nursery: trio.Nursery) -> None:
        call = _as_call(item)
        if call is not None:
            await self._turn.append((item,))
            self.calls += 1
            self._running += 1
            nursery.start_soon(self._run_call, call, nursery.cancel_scope)
            return
        shown = _as_item(item, self._runtime.now_ms())
        if shown is None:
            await self._turn.append((item,))
            return
        if shown.id not in self._open:
            await self._item_started(item)
        finished = _finished(shown, item).model_copy(
            update={
                "started_at_ms": self._open[shown.id].started_at_ms,
                "completed_at_ms": self._runtime.now_ms(),
            }
        )
        await self._turn.complete(finished, item)
        del self._open[shown.id]

    async def _run_call(self, call: ToolCall, scope: trio.CancelScope) -> None:
        turn = self._turn
        result = await turn.tools.run(call, turn.tool_turn)
        output = call_output(call.call_id, result.output, custom=call.custom)
        if result.item is None:
            await turn.append((output,))
        else:
            await turn.complete(result.item, output, persist=result.persist)
        if result.ends_turn:
            turn.cancelled_by_user = True
            scope.cancel()
        self._running -= 1
        if not self._running:
            self._idle.set()


def _as_item(item: ResponseItem, now_ms: int) -> AgentMessageItem | ReasoningItem | None:
    """The item that clients see begin, or None for a kind they do not see this way."""
    item_id = item.get("id")
    if not isinstance(item_id, str):
        return None
    if item.get("type") == "message":
        phase = item.get("phase")
        return AgentMessageItem(
            id=item_id, phase=phase if isinstance(phase, str) else None, started_at_ms=now_ms
        )
    if item.get("type") == "reasoning":
        return ReasoningItem(id=item_id, started_at_ms=now_ms)
    return None


def _finished(
    shown: AgentMessageItem | ReasoningItem, item: ResponseItem
) -> AgentMessageItem | ReasoningItem:
    if isinstance(shown, AgentMessageItem):
        return shown.model_copy(update={"text": message_text(item)})
    return shown.model_copy(
        update={"summary": _part_texts(item.get("summary")), "content": _part_texts(item.get("content"))}
    )


def _part_texts(parts: object) -> list[str]:
    if not isinstance(parts, list):
        return []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _as_call(item: ResponseItem) -> ToolCall | None:
    call_id, name = item.get("call_id"), item.get("name")
    if not (isinstance(call_id, str) and isinstance(name, str)):
        return None
    if item.get("type") == "function_call":
        namespace = item.get("namespace")
        name = model_name(namespace if isinstance(namespace, str) else None, name)
        return ToolCall(call_id, name, str(item.get("arguments") or ""))
    if item.get("type") == "custom_tool_call":
        return ToolCall(call_id, name, str(item.get("input") or ""), custom=True)
    return None
