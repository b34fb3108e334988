"""What a model client is asked, and what it streams back, whatever its wire format is.

Every client (Responses API, Chat Completions, the built-in offline model) speaks these types, in this
order: for each output item ``OutputItemStarted``, its deltas, ``OutputItemDone``; at the end exactly one
``ResponseCompleted``. A failure is a raised ``protocol.errors.TurnFailure``, never an event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from protocol.threads import TokenCounts

ResponseItem = dict[str, Any]
"""A raw item of the Responses API (message, reasoning, function_call, function_call_output, ...).
The model context is a list of these; the rollout keeps them as ``response_item`` lines."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model.

    Attributes:
        model: the model's name at its provider.
        instructions: the base instructions (system text).
        input: the context, oldest first.
        tools: tool specifications in the form of the Responses API.
        effort: reasoning effort, or None for the provider's default.
        summary: reasoning summary setting, or None.
        output_schema: JSON Schema that the final message must follow, or None.
        cache_key: stable per thread, for the provider's prompt cache.
    """

    model: str
    instructions: str
    input: list[ResponseItem]
    tools: list[dict[str, Any]] = field(default_factory=list)
    effort: str | None = None
    summary: str | None = None
    output_schema: Any = None
    cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class OutputItemStarted:
    """The model began an item; ``item`` has at least ``type`` and ``id``."""

    item: ResponseItem


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text of the assistant message ``item_id``."""

    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningSummaryPart:
    """A new summary part of the reasoning item ``item_id``."""

    item_id: str
    summary_index: int


@dataclass(frozen=True, slots=True)
class ReasoningSummaryDelta:
    """Text of a summary part."""

    item_id: str
    summary_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningTextDelta:
    """Raw reasoning text, from providers that show it."""

    item_id: str
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class OutputItemDone:
    """The finished item, complete, as it goes into the context."""

    item: ResponseItem


@dataclass(frozen=True, slots=True)
class ResponseCompleted:
    """The response ended well. ``usage`` is None where the provider did not say."""

    response_id: str
    usage: TokenCounts | None


@dataclass(frozen=True, slots=True)
class StreamRestarted:
    """The stream broke and the request is sent again: items that were started and not done are void.

    Items that were done stay done. Only ``agent.model.retry`` sends this, never a client.
    """


ModelEvent = (
    OutputItemStarted
    | TextDelta
    | ReasoningSummaryPart
    | ReasoningSummaryDelta
    | ReasoningTextDelta
    | OutputItemDone
    | ResponseCompleted
    | StreamRestarted
)


class ModelClient(Protocol):
    """One provider. Safe to share between threads of conversation; holds no conversation state."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """One attempt at one request; leaving the context closes the connection at once.

        Raises (from entering or iterating):
            protocol.errors.TurnFailure: with ``retryable`` set where another attempt may succeed.
        """
        ...

    async def prepare(self) -> None:
        """Do in advance what the first request would have to wait for. Connects to nobody, never fails."""
        ...

    async def aclose(self) -> None:
        """Close pooled connections."""
        ...
