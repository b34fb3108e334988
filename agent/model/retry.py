"""Asking a model again when it failed, on two levels.

* A request that got no response (connection refused, HTTP 5xx, 429) is sent again quietly, up to
  ``request_max_retries`` times.
* A response that broke (and a request whose quiet retries are used up, unless it was 429) is asked for
  again up to ``stream_max_retries`` times, and each time the user is told: ``Reconnecting... 1/5``.

Pauses double from 200 ms to at most 30 s, a little random so that many conversations do not come back in
step; where the provider names a pause, that one is kept.

Items that were done before a break are done: the turn has them in its context. So the request may be given
as a function, which is called for every attempt and can put them in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

import trio

from agent.model.events import ModelClient, ModelEvent, ModelRequest, StreamRestarted
from agent.model.failures import RequestFailure
from agent.model.provider import ProviderConfig
from protocol.errors import TurnFailure
from protocol.runtime import Runtime
from protocol.threads import TurnError

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0

OnRetry = Callable[[TurnError], Awaitable[None]]


def stream_with_retries(
    client: ModelClient,
    request: ModelRequest | Callable[[], ModelRequest],
    config: ProviderConfig,
    runtime: Runtime,
    on_retry: OnRetry,
) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
    """``client.stream`` with retries; iterate it to ``ResponseCompleted``.

    Args:
        client: the provider.
        request: what to ask, or a function that says it anew for each attempt.
        config: the provider's retry settings.
        runtime: for the randomness of pauses.
        on_retry: told before each ``Reconnecting...``; the client sees it as ``error {willRetry: true}``.

    Yields ``StreamRestarted`` after a break that came after at least one event. Leaving the context, also by
    cancellation, drops the connection at once.

    Raises:
        TurnFailure: from iterating, the last attempt's.
    """
    return _opened(_RetryingStream(client, request, config, runtime, on_retry))


@asynccontextmanager
async def _opened(stream: _RetryingStream) -> AsyncIterator[AsyncIterator[ModelEvent]]:
    try:
        yield stream
    except BaseException as error:
        await stream.leave(error)
        raise
    else:
        await stream.leave(None)


def pause_before(retry: int, chance: float) -> float:
    """Seconds to wait before the ``retry``-th retry (from 1); ``chance`` in [0, 1) spreads it by ±10 %."""
    pause = FIRST_PAUSE * 2.0 ** min(retry - 1, 16)
    return min(pause, LONGEST_PAUSE) * (0.9 + 0.2 * chance)


class _RetryingStream:
    def __init__(
        self,
        client: ModelClient,
        request: ModelRequest | Callable[[], ModelRequest],
        config: ProviderConfig,
        runtime: Runtime,
        on_retry: OnRetry,
    ) -> None:
        self._client = client
        self._request = request
        self._config = config
        self._runtime = runtime
        self._on_retry = on_retry
        # Invariant: both are set or neither is.
        self._attempt: AbstractAsyncContextManager[AsyncIterator[ModelEvent]] | None = None
        self._events: AsyncIterator[ModelEvent] | None = None
        self._retries = 0
        self._pause = 0.0
        self._dirty = False

    def __aiter__(self) -> _RetryingStream:
        return self

    async def __anext__(self) -> ModelEvent:
        while True:
            try:
                if self._events is None:
                    await self._open()
                    assert self._events is not None
                event = await anext(self._events)
            except TurnFailure as failure:
                await self.leave(failure)
                await self._plan_retry(failure)
                if self._dirty:
                    self._dirty = False
                    return StreamRestarted()
            else:
                self._dirty = True
                return event

    async def leave(self, error: BaseException | None) -> None:
        """Close the attempt, if one is open. ``error`` is what ended it."""
        attempt, self._attempt, self._events = self._attempt, None, None
        if attempt is None:
            return
        kind: type[BaseException] | None = None if error is None else type(error)
        trace: TracebackType | None = None if error is None else error.__traceback__
        try:
            await attempt.__aexit__(kind, error, trace)
        except BaseException as raised:
            # A context manager may raise what it was given; anything else is news.
            if raised is not error:
                raise

    async def _open(self) -> None:
        """Open an attempt, with the quiet retries."""
        if self._pause:
            pause, self._pause = self._pause, 0.0
            await trio.sleep(pause)
        tries = 0
        while True:
            request = self._request() if callable(self._request) else self._request
            attempt = self._client.stream(request)
            try:
                events = await attempt.__aenter__()
            except RequestFailure as failure:
                if not failure.retryable or tries >= self._config.request_max_retries:
                    raise
                tries += 1
                await trio.sleep(self._pause_for(failure, tries))
            else:
                self._attempt, self._events = attempt, events
                return

    async def _plan_retry(self, failure: TurnFailure) -> None:
        """Tell the user that the stream is tried again, or give up by raising ``failure``."""
        most = self._config.stream_max_retries
        final = not failure.retryable or (isinstance(failure, RequestFailure) and not failure.reconnect)
        if final or self._retries >= most:
            raise failure
        self._retries += 1
        self._pause = self._pause_for(failure, self._retries)
        status = failure.status if isinstance(failure, RequestFailure) else None
        await self._on_retry(
            TurnError(
                message=f"Reconnecting... {self._retries}/{most}",
                codex_error_info={"responseStreamDisconnected": {"httpStatusCode": status}},
                additional_details=failure.message,
            )
        )

    def _pause_for(self, failure: TurnFailure, retry: int) -> float:
        if failure.retry_after is not None:
            return failure.retry_after
        return pause_before(retry, self._runtime.random())
