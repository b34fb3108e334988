"""Dynamic tools: tools that a client brings along with thread/start and serves itself.

The model is offered them beside the built-in ones; a call of one travels to the clients as the server
request ``item/tool/call``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.base import Wire


class DynamicToolFunction(Wire):
    """One function. ``input_schema`` is a JSON Schema; with ``defer_loading`` it is offered at once too."""

    type: Literal["function"] = "function"
    name: str
    description: str
    input_schema: Any
    defer_loading: bool = False


class DynamicToolNamespace(Wire):
    """Functions that belong together."""

    type: Literal["namespace"] = "namespace"
    name: str
    description: str
    tools: list[DynamicToolFunction]


DynamicToolSpec = Annotated[DynamicToolFunction | DynamicToolNamespace, Field(discriminator="type")]


class DynamicToolCallParams(Wire):
    """``item/tool/call``: run this tool. ``namespace`` is null for a tool outside of any."""

    thread_id: str
    turn_id: str
    call_id: str
    namespace: str | None = None
    tool: str
    arguments: Any


class ToolText(Wire):
    """Text for the model."""

    type: Literal["inputText"] = "inputText"
    text: str


class ToolImage(Wire):
    """An image for the model, by address."""

    type: Literal["inputImage"] = "inputImage"
    image_url: str


class ToolAudio(Wire):
    """A sound; models here are not given sound, and told so."""

    type: Literal["inputAudio"] = "inputAudio"
    audio_url: str


ToolContent = Annotated[ToolText | ToolImage | ToolAudio, Field(discriminator="type")]


class DynamicToolCallResult(Wire):
    """How a client's tool ended, and what the model is told."""

    content_items: list[ToolContent]
    success: bool
