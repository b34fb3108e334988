"""One POST that is answered by a stream of server-sent events, as every HTTP provider here works.

Layers, from the socket up: httpx2 (connections, TLS, proxies) gives chunks of bytes, ``SSEParser`` events,
a *decoder* (one per wire format, pure, no I/O) turns an event into ``ModelEvent``s, ``DecodedStream`` is
what the turn iterates.

Cancellation: whatever is cancelled or fails in here, leaving ``ProviderHttp.stream`` drops the connection
unless its response was read to the end, so a provider stops generating as soon as nobody listens. A
connection whose response ended well is kept for the next request.

Events are decoded one by one as they are asked for, with a checkpoint now and then, so that a big chunk
does not hold the loop.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import trio
from pydantic_core import from_json, to_json

from agent.model import failures
from agent.model.events import ModelEvent
from agent.model.provider import ProviderConfig
from agent.model.sse import ServerEvent, SSEParser
from protocol.errors import TurnFailure
from protocol.late_imports import one_import_at_a_time
from protocol.runtime import Runtime

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 30.0
ERROR_BODY_BYTES = 64 * 1024
DRAIN_TIMEOUT = 0.05
CLOSE_TIMEOUT = 1.0
EVENTS_PER_CHECKPOINT = 64


class StreamDecoder(Protocol):
    """Turns the events of one response into ``ModelEvent``s. Pure: no I/O, no waiting.

    Attributes:
        ready: decoded events that nobody took yet; the stream takes them from the left.
        completed: ``ResponseCompleted`` is, or was, in ``ready``.
    """

    ready: deque[ModelEvent]
    completed: bool

    def decode(self, name: str, payload: Any) -> None:
        """Take one event's name and its JSON data.

        Raises:
            TurnFailure: the provider reported a failure. What is in ``ready`` came before it.
        """
        ...

    def is_end(self, data: bytes) -> bool:
        """Whether this data, which is no JSON, marks the end of the stream (``[DONE]``)."""
        ...

    def end(self) -> None:
        """The stream ended without a transport error.

        Raises:
            TurnFailure: too early.
        """
        ...


class ProviderHttp:
    """The connections to one provider; shared by all conversations that use it."""

    def __init__(self, config: ProviderConfig, environ: Mapping[str, str], runtime: Runtime) -> None:
        self.config = config
        self._environ = environ
        self._runtime = runtime
        self._client: httpx2.AsyncClient | None = None
        self._opening = trio.Lock()

    @asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any], decoder: StreamDecoder
    ) -> AsyncGenerator[AsyncIterator[ModelEvent], None]:
        """POST ``body`` to ``base_url + path`` and decode the answer; see the module about cancellation.

        Raises:
            TurnFailure: on entering, where there is no good response; from the iterator, where it breaks.
        """
        url = self.config.base_url + path
        headers = self._headers(url)
        try:
            content = to_json(body)
        except ValueError as error:  # half a surrogate pair
            raise TurnFailure(f"the request to {url} cannot be written as JSON: {error}") from error
        client = await self._open_client(url)
        import httpx2

        params = self.config.query_params or None
        try:
            request = client.build_request("POST", url, params=params, headers=headers, content=content)
        except (ValueError, httpx2.InvalidURL):
            # Without its cause, which would show the value: it may be a key.
            raise TurnFailure(
                f"cannot build a request to {url}: a header or the query is not valid"
            ) from None
        try:
            response = await client.send(request, stream=True)
        except httpx2.ReadTimeout as error:
            raise failures.stream_broke(failures.IDLE) from error
        except httpx2.LocalProtocolError:
            raise TurnFailure(f"cannot send a request to {url}: a header is not valid") from None
        except httpx2.TransportError as error:
            raise failures.connect_failure(url, _describe(error)) from error
        chunks = response.aiter_raw()
        events: DecodedStream | None = None
        try:
            encoding = response.headers.get("content-encoding", "identity").strip().lower()
            readable = encoding in ("identity", "")
            if not response.is_success:
                text = await _error_text(chunks) if readable else ""
                raise failures.http_failure(
                    response.status_code, text, url, response.headers, self._runtime.now_ms()
                )
            if not readable:  # we said that we take identity only
                raise TurnFailure(f"the answer from {url} has the content-encoding `{encoding[:100]}`")
            content_type = response.headers.get("content-type", "")
            events = DecodedStream(chunks, decoder, url, content_type)
            yield events
        finally:
            if events is not None and decoder.completed:
                # Reading up to the end lets the connection be used again. Usually the end is here already.
                with trio.move_on_after(DRAIN_TIMEOUT):
                    await _unwind(chunks)
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await response.aclose()
                await _unwind(chunks)

    async def prepare(self) -> None:
        """Open the client before it is needed; what is wrong with that, the first request will say."""
        with suppress(TurnFailure):
            await self._open_client(self.config.base_url)

    async def aclose(self) -> None:
        """Close all connections; streams still open break. The next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await client.aclose()

    def _headers(self, url: str) -> dict[str, str]:
        config = self.config
        headers = {
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "spoold",
        }
        for name, value in config.http_headers.items():
            headers[name.lower()] = value
        for name, variable in config.env_http_headers.items():
            value = self._environ.get(variable, "").strip()
            if value:
                headers[name.lower()] = value
        token = config.experimental_bearer_token
        if token is None and config.env_key is not None:
            token = self._environ.get(config.env_key, "").strip()
            if not token:
                how = f" {config.env_key_instructions}" if config.env_key_instructions else ""
                raise TurnFailure(
                    f"Missing environment variable: `{config.env_key}`. Set it to the API key of the model "
                    f"provider `{config.name}` ({url}) and start spoold again.{how}"
                )
        if token:
            headers["authorization"] = f"Bearer {token}"
        return headers

    async def _open_client(self, url: str) -> httpx2.AsyncClient:
        """The shared client. Made in a thread: importing httpx2 and loading certificates take a while."""
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await trio.to_thread.run_sync(self._make_client)
                except (ValueError, ImportError, OSError) as error:  # proxy or certificate settings
                    raise TurnFailure(f"cannot set up the connection to {url}: {error}") from error
            return self._client

    def _make_client(self) -> httpx2.AsyncClient:
        import ssl

        with one_import_at_a_time:
            import httpx2

        for name in ("httpx2", "httpcore2"):  # they log whole URLs, and a query may hold a key
            logging.getLogger(name).setLevel(logging.WARNING)
        parts = urlsplit(self.config.base_url)
        loopback = is_loopback(parts.hostname or "")
        # Without TLS no certificates are needed, and loading them costs tens of milliseconds; a context
        # that trusts nobody stands in their place.
        plain = parts.scheme == "http" and loopback
        idle = self.config.stream_idle_timeout_ms / 1000
        return httpx2.AsyncClient(
            trust_env=not loopback,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
            timeout=httpx2.Timeout(connect=CONNECT_TIMEOUT, read=idle, write=idle, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32),
            follow_redirects=False,
        )


class DecodedStream:
    """The events of one response, in order. One consumer."""

    def __init__(
        self, chunks: AsyncIterator[bytes], decoder: StreamDecoder, url: str, content_type: str
    ) -> None:
        self._chunks = chunks
        self._decoder = decoder
        self._url = url
        self._content_type = content_type
        self._parser = SSEParser()
        self._undecoded: deque[ServerEvent] = deque()
        self._failure: TurnFailure | None = None
        self._ended = False
        self._any = False
        self._until_checkpoint = EVENTS_PER_CHECKPOINT

    def __aiter__(self) -> DecodedStream:
        return self

    async def __anext__(self) -> ModelEvent:
        ready = self._decoder.ready
        while not ready:
            if self._decoder.completed:
                raise StopAsyncIteration
            if self._failure is not None and not self._undecoded:
                raise self._failure
            try:
                if self._undecoded:
                    self._decode(*self._undecoded.popleft())
                elif self._ended:
                    self._decoder.end()
                else:
                    await self._read()
            except TurnFailure as failure:
                self._failure = failure
                self._undecoded.clear()
        self._until_checkpoint -= 1
        if self._until_checkpoint <= 0:
            self._until_checkpoint = EVENTS_PER_CHECKPOINT
            await trio.lowlevel.checkpoint()
        return ready.popleft()

    async def _read(self) -> None:
        """Read one chunk."""
        import httpx2

        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
            self._take(self._parser.finish())
            if not self._any and not self._content_type.startswith("text/event-stream"):
                raise failures.no_events(self._content_type, self._url) from None
            return
        except httpx2.ReadTimeout as error:
            raise failures.stream_broke(failures.IDLE) from error
        except (httpx2.TransportError, httpx2.StreamError) as error:
            log.debug("the stream from %s broke: %s", self._url, _describe(error))
            raise failures.stream_broke(failures.TRANSPORT_CUT) from error
        self._take(self._parser.feed(chunk))
        if self._parser.overflowed:
            self._failure = TurnFailure(
                f"stream disconnected before completion: an event from {self._url} is too large"
            )

    def _take(self, events: list[ServerEvent]) -> None:
        if events:
            self._any = True
            self._undecoded.extend(events)

    def _decode(self, name: bytes, data: bytes) -> None:
        try:
            payload = from_json(data)
        except ValueError:
            if self._decoder.is_end(data.strip()):
                self._ended = True
                self._undecoded.clear()
                return
            try:  # invalid UTF-8 spoils its characters, not the event
                payload = from_json(data.decode("utf-8", "replace"))
            except ValueError:
                log.warning("ignored an event from %s that is not JSON (%d bytes)", self._url, len(data))
                return
        self._decoder.decode(name.decode("utf-8", "replace"), payload)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by its name alone; such a host is never asked through a proxy."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _unwind(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end, or to the error that a closed connection gives; neither matters any more.

    httpx2 stacks generators on generators and one layer (2.16) leaves the one below it suspended when it is
    closed, to be found by the garbage collector. Run to their end, all of them are finished.
    """
    import httpx2

    try:
        async for _ in chunks:
            pass
    except (httpx2.HTTPError, httpx2.StreamError):
        log.debug("the connection ended")


async def _error_text(chunks: AsyncIterator[bytes]) -> str:
    """The body of an error response, at most ``ERROR_BODY_BYTES``; what came of it, if it breaks."""
    import httpx2

    body = bytearray()
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) >= ERROR_BODY_BYTES:
                break
    except (httpx2.HTTPError, httpx2.StreamError):
        log.debug("an error response broke before its end")
    return bytes(body[:ERROR_BODY_BYTES]).decode("utf-8", "replace")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class HttpModelClient:
    """What the clients of a provider have in common whatever its wire API; each adds ``stream``."""

    def __init__(self, http: ProviderHttp, runtime: Runtime) -> None:
        self._http = http
        self._runtime = runtime

    async def prepare(self) -> None:
        """See ``ModelClient.prepare``."""
        await self._http.prepare()

    async def aclose(self) -> None:
        """Close pooled connections."""
        await self._http.aclose()
