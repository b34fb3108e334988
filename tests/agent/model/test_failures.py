"""Each row of the table of failures, as a real provider produces it, and nothing retried that must not be."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agent.model import failures
from protocol.errors import TurnFailure
from tests.agent.model.model_setup import asking, client_for, failing, raw_server
from tests.support.scripted_model import open_scripted_model

DISCONNECTED = "stream disconnected before completion: "

ROWS: list[tuple[str, str, Any, bool]] = [
    (
        "http 500 whatever",
        "We\u2019re currently experiencing high demand, which may cause temporary errors.",
        "internalServerError",
        True,
    ),
    (
        "http 400 bad thing",
        '{"error": {"message": "bad thing", "type": "scripted", "code": null}}',
        "other",
        False,
    ),
    (
        "http 401 who are you",
        "unexpected status 401 Unauthorized: who are you, url: {base}/responses",
        {"httpConnectionFailed": {"httpStatusCode": 401}},
        False,
    ),
    (
        "http 429 slow down",
        "exceeded retry limit, last status: 429 Too Many Requests",
        {"responseTooManyFailedAttempts": {"httpStatusCode": 429}},
        True,
    ),
    (
        "http 503 gone",
        "unexpected status 503 Service Unavailable: gone, url: {base}/responses",
        {"httpConnectionFailed": {"httpStatusCode": 503}},
        True,
    ),
    (
        'http 503 {"error": {"code": "server_is_overloaded"}}',
        "Selected model is at capacity. Please try a different model.",
        "serverOverloaded",
        True,
    ),
    (
        "cut one two three four",
        DISCONNECTED + "Transport error: network error: error decoding response body",
        "other",
        True,
    ),
    ("nocomplete all of it", DISCONNECTED + "stream closed before response.completed", "other", True),
    ("failed server_error it broke", DISCONNECTED + "it broke", "other", True),
    (
        "failed context_length_exceeded too long",
        "Codex ran out of room in the model's context window. "
        "Start a new thread or clear earlier history before retrying.",
        "contextWindowExceeded",
        False,
    ),
    (
        "failed insufficient_quota pay",
        "Quota exceeded. Check your plan and billing details.",
        "usageLimitExceeded",
        False,
    ),
    (
        "failed rate_limit_exceeded Please try again in 1.5s.",
        "rate limit exceeded: Please try again in 1.5s.",
        "rateLimitExceeded",
        True,
    ),
    ("failed invalid_prompt not that", "not that", "other", False),
    (
        "incomplete max_output_tokens",
        "Incomplete response returned, reason: max_output_tokens",
        "other",
        False,
    ),
]


@pytest.mark.parametrize(("script", "message", "info", "retryable"), ROWS, ids=[row[0] for row in ROWS])
async def test_a_failing_model_is_told_in_the_words_of_the_table(
    nursery: trio.Nursery, script: str, message: str, info: Any, retryable: bool
) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        _, failure = await failing(client, asking(script))
        assert failure.message == message.replace("{base}", model.base_url)
        assert (failure.info, failure.retryable) == (info, retryable)


CHAT_ROWS = [
    ("http 500 x", failures.HIGH_DEMAND),
    ("cut one two three", DISCONNECTED + failures.TRANSPORT_CUT),
    ("nocomplete all of it", DISCONNECTED + failures.CLOSED_EARLY),
    ("failed context_length_exceeded x", failures.CONTEXT_WINDOW),
    ("failed server_error it broke", DISCONNECTED + "it broke"),
    ("incomplete max_output_tokens", "Incomplete response returned, reason: max_output_tokens"),
    ("incomplete content_filter", "Incomplete response returned, reason: content_filter"),
]


@pytest.mark.parametrize(("script", "message"), CHAT_ROWS, ids=[row[0] for row in CHAT_ROWS])
async def test_a_chat_server_fails_in_the_same_words(
    nursery: trio.Nursery, script: str, message: str
) -> None:
    async with (
        open_scripted_model(nursery) as model,
        client_for(model.base_url, wire_api="chat") as client,
    ):
        _, failure = await failing(client, asking(script))
        assert failure.message == message


async def test_a_provider_that_is_not_there_is_named(unused_port: int) -> None:
    base_url = f"http://127.0.0.1:{unused_port}/v1"
    async with client_for(base_url) as client:
        _, failure = await failing(client, asking("say hello"))
        assert failure.message == f"Connection failed: error sending request, url: {base_url}/responses"
        assert failure.info == {"httpConnectionFailed": {"httpStatusCode": None}}
        assert failure.retryable


async def test_a_missing_key_names_the_variable_to_set() -> None:
    async with client_for(
        "http://127.0.0.1:1/v1", env_key="LOCAL_KEY", env_key_instructions="Ask Ada."
    ) as client:
        _, failure = await failing(client, asking("say hello"))
        assert "`LOCAL_KEY`" in failure.message
        assert "Ask Ada." in failure.message
        assert not failure.retryable


async def test_a_key_that_http_cannot_carry_fails_without_being_shown(nursery: trio.Nursery) -> None:
    async with (
        open_scripted_model(nursery) as model,
        client_for(model.base_url, {"K": "sesame\r\nx: 1"}, env_key="K") as client,
    ):
        _, failure = await failing(client, asking("say hello"))
        assert "sesame" not in failure.message + str(failure.details)
        assert not failure.retryable
        assert model.requests == []


async def test_a_context_that_is_no_text_fails_the_turn_before_anything_is_sent(
    nursery: trio.Nursery,
) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        _, failure = await failing(client, asking("half a pair: \ud800"))
        assert "cannot be written as JSON" in failure.message
        assert model.requests == []


async def test_no_log_line_holds_a_key(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with (
        open_scripted_model(nursery) as model,
        client_for(
            model.base_url,
            {"K": "sesame"},
            env_key="K",
            query_params={"key": "sesame"},
            http_headers={"x-key": "sesame"},
        ) as client,
    ):
        await failing(client, asking("cut one two three"))
        await failing(client, asking("http 401 no"))
        assert "sesame" in str(model.requests[0])
    assert "sesame" not in caplog.text


async def test_a_silent_stream_ends_with_the_idle_timeout(nursery: trio.Nursery) -> None:
    async with (
        open_scripted_model(nursery) as model,
        client_for(model.base_url, stream_idle_timeout_ms=30) as client,
    ):
        events, failure = await failing(client, asking("hold never one two"))
        assert failure.message == DISCONNECTED + "idle timeout waiting for SSE"
        assert failure.retryable
        assert len(events) == 2
        await model.hung_up()


async def test_headers_that_never_come_end_with_the_idle_timeout(nursery: trio.Nursery) -> None:
    async with (
        open_scripted_model(nursery) as model,
        client_for(model.base_url, stream_idle_timeout_ms=30) as client,
    ):
        _, failure = await failing(client, asking("wait never one two"))
        assert failure.message == DISCONNECTED + "idle timeout waiting for SSE"
        await model.hung_up()


async def test_a_server_that_hangs_up_without_a_word_is_a_failed_connection(nursery: trio.Nursery) -> None:
    async with raw_server(nursery, b"") as base_url, client_for(base_url) as client:
        _, failure = await failing(client, asking("say hello"))
        assert failure.message.startswith("Connection failed")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "99999"}, failures.MAX_RETRY_AFTER),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:25 GMT"}, 5.0),
        ({"retry-after": "Tue, 14 Nov 2000 22:13:25 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_the_pause_a_provider_asks_for_is_kept_within_bounds(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert failures.retry_after(headers, now_ms=1_700_000_000_000) == seconds


@pytest.mark.parametrize(
    "body", ["", "<html>no</html>", "[1]", '"x"', '{"error": "plain"}', '{"error": 3}', "{"]
)
def test_an_error_body_of_any_shape_makes_a_message(body: str) -> None:
    failure = failures.http_failure(418, body, "http://x/y", {"x-request-id": "r1"}, 0)
    assert isinstance(failure, TurnFailure)
    assert failure.message.startswith("unexpected status 418 I'm a Teapot: ")
    assert failure.message.endswith(", url: http://x/y, request id: r1")


def test_a_status_without_a_name_has_one_anyway() -> None:
    assert failures.status_line(599) == "599 <unknown status code>"


def test_a_quota_that_is_used_up_is_not_a_matter_of_waiting() -> None:
    failure = failures.http_failure(429, '{"error": {"code": "insufficient_quota"}}', "u", {}, 0)
    assert (failure.info, failure.retryable) == ("usageLimitExceeded", False)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("try again in 1.5s", 1.5),
        ("Please try again in 20ms.", 0.02),
        ("later", None),
        ("try again in 9999 seconds", 60.0),
    ],
)
def test_a_rate_limit_says_when_to_come_back(message: str, seconds: float | None) -> None:
    assert failures.response_failed("rate_limit_exceeded", message).retry_after == seconds
