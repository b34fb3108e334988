"""Both levels of retries: on real sockets with a scripted model, and their pauses on a mock clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agent.model import failures
from agent.model.events import (
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    ResponseCompleted,
    StreamRestarted,
    TextDelta,
)
from agent.model.provider import ProviderConfig
from agent.model.retry import LONGEST_PAUSE, pause_before, stream_with_retries
from tests.agent.model.model_setup import CountingRuntime, Retried, asking, client_for, provider, said
from tests.support.scripted_model import open_scripted_model

PATIENT = {"request_max_retries": 2, "stream_max_retries": 2}


class FailingClient:
    """Fails as told, attempt by attempt: on entering, or after one delta; then answers."""

    def __init__(self, *attempts: Exception | None, late: bool = False) -> None:
        self.attempts = list(attempts)
        self.late = late
        self.asked: list[ModelRequest] = []
        self.times: list[float] = []
        self.left = 0

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        self.asked.append(request)
        self.times.append(trio.current_time())
        failure = self.attempts.pop(0) if self.attempts else None
        if failure is not None and not self.late:
            raise failure
        try:
            async with aclosing(self._events(failure)) as events:
                yield events
        finally:
            self.left += 1

    async def _events(self, failure: Exception | None) -> AsyncGenerator[ModelEvent, None]:
        await trio.lowlevel.checkpoint()
        yield TextDelta("m", "a")
        if failure is not None:
            raise failure
        yield ResponseCompleted("r", None)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def pauses(self) -> list[float]:
        return [round(later - sooner, 6) for sooner, later in zip(self.times, self.times[1:], strict=False)]


def config(requests: int, streams: int) -> ProviderConfig:
    return provider("http://127.0.0.1:1", request_max_retries=requests, stream_max_retries=streams)


def http(status: int, headers: dict[str, str] | None = None) -> Exception:
    return failures.http_failure(status, "", "u", headers or {}, 0)


async def test_a_request_without_a_response_is_retried_quietly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = FailingClient(http(500), http(503), http(429), failures.connect_failure("u", "refused"))
    turn = await Retried().run(client, asking("x"), config(4, 0))
    assert turn.failure is None
    assert turn.announced == []
    assert turn.events == [TextDelta("m", "a"), ResponseCompleted("r", None)]
    assert client.pauses() == [0.2, 0.4, 0.8, 1.6]


async def test_quiet_retries_used_up_become_reconnects_with_quiet_retries_each(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = FailingClient(*[http(500)] * 20)
    turn = await Retried().run(client, asking("x"), config(1, 2))
    assert turn.failure is not None
    assert turn.failure.message == failures.HIGH_DEMAND
    assert [each.message for each in turn.announced] == ["Reconnecting... 1/2", "Reconnecting... 2/2"]
    assert turn.announced[0].codex_error_info == {"responseStreamDisconnected": {"httpStatusCode": 500}}
    assert turn.announced[0].additional_details == failures.HIGH_DEMAND
    assert len(client.asked) == 6
    assert turn.events == []


async def test_too_many_requests_is_final_once_quiet_retries_are_used_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = FailingClient(*[http(429)] * 9)
    turn = await Retried().run(client, asking("x"), config(2, 5))
    assert turn.failure is not None
    assert turn.failure.message == "exceeded retry limit, last status: 429 Too Many Requests"
    assert turn.announced == []
    assert len(client.asked) == 3


@pytest.mark.parametrize(
    "failure",
    [
        http(400),
        http(401),
        http(404),
        failures.response_failed("context_length_exceeded", None),
        failures.quota_exceeded(),
        failures.incomplete("max_output_tokens"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_what_another_attempt_cannot_mend_is_not_retried(failure: Exception, late: bool) -> None:
    client = FailingClient(failure, late=late)
    turn = await Retried().run(client, asking("x"), config(4, 5))
    assert turn.failure is failure
    assert (len(client.asked), turn.announced) == (1, [])


async def test_the_pause_that_the_provider_names_wins(autojump_clock: trio.testing.MockClock) -> None:
    client = FailingClient(http(429, {"retry-after": "7"}), http(500))
    await Retried().run(client, asking("x"), config(4, 0))
    assert client.pauses() == [7.0, 0.4]


async def test_a_rate_limit_in_the_stream_waits_as_it_says(autojump_clock: trio.testing.MockClock) -> None:
    limit = failures.response_failed("rate_limit_exceeded", "try again in 3s")
    client = FailingClient(limit, late=True)
    await Retried().run(client, asking("x"), config(0, 1))
    assert client.pauses() == [3.0]


async def test_a_break_after_events_is_marked_before_the_next_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    broke = failures.stream_broke("cause")
    client = FailingClient(broke, broke, late=True)
    turn = await Retried().run(client, asking("x"), config(0, 5))
    delta, restarted = TextDelta("m", "a"), StreamRestarted()
    assert turn.events == [delta, restarted, delta, restarted, delta, ResponseCompleted("r", None)]
    assert [each.message for each in turn.announced] == ["Reconnecting... 1/5", "Reconnecting... 2/5"]
    assert turn.announced[0].codex_error_info == {"responseStreamDisconnected": {"httpStatusCode": None}}
    assert turn.announced[0].additional_details == "stream disconnected before completion: cause"
    assert client.pauses() == [0.2, 0.4]
    assert client.left == 3


async def test_the_request_can_be_said_anew_for_each_attempt(autojump_clock: trio.testing.MockClock) -> None:
    client = FailingClient(http(500), http(500))
    spoken: list[ModelRequest] = []

    def say() -> ModelRequest:
        spoken.append(asking(f"attempt {len(spoken)}"))
        return spoken[-1]

    await Retried().run(client, say, config(1, 1))
    assert client.asked == spoken
    assert [request.input for request in spoken] == [[said(f"attempt {number}")] for number in range(3)]


async def test_cancelling_a_pause_ends_it(mock_clock: trio.testing.MockClock) -> None:
    client = FailingClient(*[http(500, {"retry-after": "50"})] * 3)
    turn = Retried()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.run, client, asking("x"), config(4, 0))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(client.asked) == 1
    assert turn.failure is None


async def test_an_error_of_the_consumer_closes_the_attempt() -> None:
    client = FailingClient()

    async def on_retry(error: Any) -> None:
        raise AssertionError

    async def consume() -> None:
        stream = stream_with_retries(client, asking("x"), config(0, 0), CountingRuntime(), on_retry)
        async with stream as events:
            await anext(events)
            raise KeyError

    with pytest.raises(KeyError):
        await consume()
    assert client.left == 1


@given(retry=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_far_from_its_plan(retry: int, chance: float) -> None:
    plan = min(0.2 * 2 ** (min(retry, 50) - 1), LONGEST_PAUSE)
    assert plan * 0.9 <= pause_before(retry, chance) <= plan * 1.1


async def test_a_cut_stream_is_asked_for_again_on_a_real_socket(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        model.script("cut one two three four", "nocomplete one", "http 500", "http 500", "say all is well")
        turn = await Retried().run(client, asking("x"), provider(model.base_url, **PATIENT))
        assert turn.failure is None
        assert [each.message for each in turn.announced] == ["Reconnecting... 1/2", "Reconnecting... 2/2"]
        texts = [
            event.item["content"][0]["text"] for event in turn.events if isinstance(event, OutputItemDone)
        ]
        assert texts == ["one", "all is well"]
        assert turn.events.count(StreamRestarted()) == 2
        assert len(model.requests) == 5


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("cut one two", "stream disconnected before completion: " + failures.TRANSPORT_CUT),
        ("http 500", failures.HIGH_DEMAND),
    ],
)
async def test_without_retries_the_first_failure_is_the_last(
    nursery: trio.Nursery, script: str, message: str
) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        turn = await Retried().run(client, asking(script), provider(model.base_url))
        assert turn.failure is not None
        assert turn.failure.message == message
        assert (turn.announced, len(model.requests)) == ([], 1)
