"""How a model failed, in the words and codes that clients know.

Every way a provider can let us down (an HTTP status, a transport error, a ``response.failed`` event) becomes
one ``protocol.errors.TurnFailure`` here, and nowhere else, so that every wire format fails alike.

Two kinds of retry, two kinds of failure. A ``RequestFailure`` came before any response: the same request may
quietly be sent again. Any other retryable failure broke a response that had begun: the user is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json

from protocol.errors import TurnFailure

MAX_RETRY_AFTER = 60.0
"""Seconds. A provider that asks for a longer pause gets this one: a person is waiting."""

HIGH_DEMAND = "We\u2019re currently experiencing high demand, which may cause temporary errors."
CONTEXT_WINDOW = (
    "Codex ran out of room in the model's context window. "
    "Start a new thread or clear earlier history before retrying."
)
QUOTA = "Quota exceeded. Check your plan and billing details."
OVERLOADED = "Selected model is at capacity. Please try a different model."
TRANSPORT_CUT = "Transport error: network error: error decoding response body"
CLOSED_EARLY = "stream closed before response.completed"
IDLE = "idle timeout waiting for SSE"

_BODY_IN_MESSAGE = 2000
_TRY_AGAIN = re.compile(r"try again in\s*(\d+(?:\.\d+)?)\s*(ms|s\b|second)", re.IGNORECASE)


class RequestFailure(TurnFailure):
    """A failure before the provider began to answer.

    Attributes:
        reconnect: whether, once the quiet retries are used up, it counts as a broken stream, which has
            retries of its own. False where the provider has told us to stop (429, at capacity).
        status: the HTTP status, or None where there was not even one.
    """

    reconnect: bool = True
    status: int | None = None


def _request_failure(
    message: str,
    info: str | dict[str, Any],
    *,
    status: int,
    pause: float | None,
    reconnect: bool = True,
) -> RequestFailure:
    failure = RequestFailure(message, info, retryable=True, retry_after=pause)
    failure.status = status
    failure.reconnect = reconnect
    return failure


def http_failure(status: int, body: str, url: str, headers: Mapping[str, str], now_ms: int) -> TurnFailure:
    """A response with a status other than 2xx.

    Args:
        status: the HTTP status.
        body: the response's text, already bounded by the caller.
        url: what was asked, without the query (it may hold a key).
        headers: response headers, names in lower case.
        now_ms: Unix time, for a ``Retry-After`` that names a date.
    """
    error = _error_object(body)
    code = error.get("code") or error.get("type")
    line = status_line(status)
    pause = retry_after(headers, now_ms)
    if status == HTTPStatus.BAD_REQUEST and body.strip():
        return TurnFailure(body)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        if code in ("insufficient_quota", "usage_limit_reached"):
            return quota_exceeded()
        return _request_failure(
            f"exceeded retry limit, last status: {line}",
            {"responseTooManyFailedAttempts": {"httpStatusCode": status}},
            status=status,
            pause=pause,
            reconnect=False,
        )
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _request_failure(HIGH_DEMAND, "internalServerError", status=status, pause=pause)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and code in ("server_is_overloaded", "slow_down"):
        return _request_failure(OVERLOADED, "serverOverloaded", status=status, pause=pause, reconnect=False)
    said = error.get("message")
    if not isinstance(said, str) or not said:
        said = body.strip()[:_BODY_IN_MESSAGE] or "Unknown error"
    message = f"unexpected status {line}: {said}, url: {url}"
    request_id = headers.get("x-request-id")
    if request_id:
        message += f", request id: {request_id}"
    info: dict[str, Any] = {"httpConnectionFailed": {"httpStatusCode": status}}
    if status >= 500:
        return _request_failure(message, info, status=status, pause=pause)
    return TurnFailure(message, info)


def connect_failure(url: str, cause: str) -> RequestFailure:
    """No connection, or none that carried the request."""
    return RequestFailure(
        f"Connection failed: error sending request, url: {url}",
        {"httpConnectionFailed": {"httpStatusCode": None}},
        details=cause,
        retryable=True,
    )


def stream_broke(cause: str) -> TurnFailure:
    """A response that began and did not end; another attempt may succeed."""
    return TurnFailure(f"stream disconnected before completion: {cause}", retryable=True)


def response_failed(code: str | None, message: str | None) -> TurnFailure:
    """The provider said ``response.failed`` (or sent an ``error`` event)."""
    if code == "context_length_exceeded":
        return TurnFailure(CONTEXT_WINDOW, "contextWindowExceeded")
    if code in ("insufficient_quota", "usage_limit_reached"):
        return quota_exceeded()
    if code in ("server_is_overloaded", "slow_down"):
        return TurnFailure(OVERLOADED, "serverOverloaded")
    if code == "invalid_prompt":
        return TurnFailure(message or "Invalid request.")
    if code == "rate_limit_exceeded":
        said = f"rate limit exceeded: {message}" if message else "rate limit exceeded"
        return TurnFailure(said, "rateLimitExceeded", retryable=True, retry_after=_try_again(said))
    return stream_broke(message or "response.failed event received")


def incomplete(reason: str | None) -> TurnFailure:
    """The provider stopped in the middle and says why (``max_output_tokens``, ``content_filter``)."""
    return TurnFailure(f"Incomplete response returned, reason: {reason or 'unknown'}")


def quota_exceeded() -> TurnFailure:
    """The account has nothing left; waiting a little will not help."""
    return TurnFailure(QUOTA, "usageLimitExceeded")


def no_events(content_type: str, url: str) -> TurnFailure:
    """A success without one event in it: most likely no model server lives at this address."""
    return TurnFailure(
        f"expected an event stream from {url}, got content type `{content_type[:100]}` without any event; "
        "check the provider's base_url and wire_api"
    )


def status_line(status: int) -> str:
    """``429 Too Many Requests``: the standard phrase, whatever the server wrote."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} <unknown status code>"


def retry_after(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Seconds the provider asks us to wait, at most ``MAX_RETRY_AFTER``; None if it does not say."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            from email.utils import parsedate_to_datetime

            try:
                seconds = parsedate_to_datetime(value).timestamp() - now_ms / 1000
            except (ValueError, OverflowError):
                continue
        if seconds == seconds:  # "nan" is a float to Python
            return min(max(seconds, 0.0), MAX_RETRY_AFTER)
    return None


def _try_again(message: str) -> float | None:
    """Seconds in ``Please try again in 1.5s``, at most ``MAX_RETRY_AFTER``."""
    found = _TRY_AGAIN.search(message)
    if found is None:
        return None
    return min(float(found[1]) / (1000 if found[2].lower() == "ms" else 1), MAX_RETRY_AFTER)


def _error_object(body: str) -> dict[str, Any]:
    """The ``error`` member of a JSON body, in any of the forms servers use; else empty."""
    try:
        value = from_json(body)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    error = value.get("error", value)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}
