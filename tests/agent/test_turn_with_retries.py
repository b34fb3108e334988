"""A turn on the real retries, with a provider that breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from agent.events import Retrying, TurnOutcome
from agent.model.events import ModelEvent, ModelRequest, TextDelta
from agent.model.provider import ProviderConfig
from agent.model.retry import stream_with_retries
from protocol.errors import TurnFailure
from protocol.threads import TurnError
from tests.agent.stage import ScriptedModel, Stage, Step, call, opened, say, submission

ANSWER = ["started agentMessage", "delta 'done'", "completed agentMessage", "ModelResponded"]


class Provider:
    """A ``ModelClient`` on a script."""

    def __init__(self, *responses: list[Step]) -> None:
        self.script = ScriptedModel(*responses)

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        async def nothing(_: TurnError) -> None:
            raise AssertionError

        return self.script(lambda: request, nothing)

    async def aclose(self) -> None:
        pass


class Retried(ScriptedModel):
    """The provider with its retries, as a turn takes it."""

    def __init__(self, stage: Stage, *responses: list[Step], retries: int = 2) -> None:
        super().__init__()
        self.provider = Provider(*responses)
        self._config = ProviderConfig(name="x", base_url="http://x", stream_max_retries=retries)
        self._runtime = stage.runtime

    def __call__(  # type: ignore[override]
        self, request: Callable[[], ModelRequest], on_retry: Callable[[TurnError], Awaitable[None]]
    ) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        return stream_with_retries(self.provider, request, self._config, self._runtime, on_retry)


def cut() -> TurnFailure:
    return TurnFailure("cut", retryable=True)


async def test_a_broken_response_is_asked_again_with_the_commands_it_ran(stage: Stage) -> None:
    model = Retried(stage, [call("call-1", cmd="echo hi"), opened("msg-0"), cut()], say("done"))
    assert await stage.run(model) == TurnOutcome()
    first, second = model.provider.script.requests
    assert [item["type"] for item in second.input[len(first.input) :]] == [
        "function_call",
        "function_call_output",
    ]
    log = stage.port.log()
    assert log[-4:] == ANSWER
    assert log.count("Retrying") == 1
    assert log.count("completed commandExecution completed") == 1
    retrying = next(event for event in stage.port.events if isinstance(event, Retrying))
    assert retrying.error.message == "Reconnecting... 1/2"


async def test_a_steer_cuts_the_pause_before_a_retry_short(stage: Stage) -> None:
    slow = TurnFailure("busy", retryable=True, retry_after=1000.0)
    model = Retried(stage, [opened("msg-0"), TextDelta("msg-0", "x"), slow], say("done"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(lambda event: isinstance(event, Retrying))
        stage.control.steer(submission("second", "user-2"))
    assert stage.port.log()[-4:] == ANSWER
    assert model.provider.script.user_texts() == ["hello", "second"]


async def test_when_the_retries_are_used_up_the_turn_fails(stage: Stage) -> None:
    model = Retried(stage, [cut()], [cut()], retries=1)
    outcome = await stage.run(model)
    assert outcome.error is not None
    assert outcome.error.message == "cut"
